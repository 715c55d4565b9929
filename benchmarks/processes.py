"""Run a command as a user would, and measure the time, memory and disk of all its processes."""

import re
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "watched"]

_SECONDS_BETWEEN = 0.2


@dataclass(frozen=True)
class Usage:
    """The time, the peak memory and the peak disk space of a command. Sizes are in millions of bytes.

    Attributes:
        seconds: from its start to its end.
        memory_mb: the memory of all its processes, with mapped files; pages that processes share count once (PSS).
        own_mb: the part of `memory_mb` that is not mapped from files.
        disk_mb: the size of the watched folder.
        output: the text that it printed on stdout.
    """

    seconds: float
    memory_mb: float
    own_mb: float
    disk_mb: float
    output: str


def watched(command: Sequence[str], folder: Path | None = None) -> Usage:
    """Run a command, and measure its processes, and a folder that it writes to, every 0.2 s."""
    peaks, ended = {"Pss": 0.0, "Pss_Anon": 0.0, "disk": 0.0}, threading.Event()
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def look() -> None:
            while not ended.wait(_SECONDS_BETWEEN):
                measured = _memory(process.pid) | ({"disk": _disk(folder)} if folder else {})
                for name, megabytes in measured.items():
                    peaks[name] = max(peaks[name], megabytes)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            output, _ = process.communicate()
            seconds = time.perf_counter() - began
        finally:
            ended.set()
            watcher.join()
    if process.returncode:
        raise SystemExit(f"{list(command)[:6]} ended with {process.returncode}")
    return Usage(seconds, peaks["Pss"], peaks["Pss_Anon"], peaks["disk"], output)


def _memory(root: int) -> dict[str, float]:
    sums = {"Pss": 0.0, "Pss_Anon": 0.0}
    for pid in _tree(root):
        with suppress(OSError):  # the process has ended
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            for name, kilobytes in re.findall(r"^(Pss|Pss_Anon): +(\d+) kB", text, re.MULTILINE):
                sums[name] += int(kilobytes) * 1024 / 1e6
    return sums


def _tree(root: int) -> list[int]:
    """A process, the processes that it started, and so on."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            after_name = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(after_name[1])
    tree = [root]
    for parent in tree:
        tree += [pid for pid, parent_of_pid in parents.items() if parent_of_pid == parent]
    return tree


def _disk(folder: Path) -> float:
    blocks = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            blocks += path.lstat().st_blocks
    return blocks * 512 / 1e6
