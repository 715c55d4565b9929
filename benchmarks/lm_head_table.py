"""The neighbor table and index of a large head: their time and memory, and how much of the exact table is in them."""

import re
import subprocess
import tempfile
import time
from pathlib import Path

import costbank
from benchmarks.lm_head import build_command, make_head
from benchmarks.record import record

__all__ = ["run"]


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make_head(place / "model")
        seconds, own, resident = _watched(build_command(place, "near"))
        bank = costbank.open_bank("near", place / "store")
        facts, libraries = bank.manifest.neighbors, ("numpy", "torch", "faiss-cpu")
        workload = f"the head of lm_head with {facts.k} neighbors and an index; {facts.method}"
        record("lm_head_table", "build with neighbors", "s", [seconds], "", libraries, workload)
        record(
            "lm_head_table", "of that, the table", "s", [bank.manifest.seconds["neighbors"]], "", libraries, workload
        )
        record("lm_head_table", "peak memory of its own", "MB", [own], "< 1500", libraries, workload)
        mapped = f"{workload}; with the bank's file, which is mapped"
        record("lm_head_table", "peak resident memory", "MB", [resident], "", libraries, mapped)
        note = f"{workload}; {facts.sampled} sampled rows against the exact table"
        record("lm_head_table", f"recall@{facts.recall_at}", "share", [facts.recall], ">= 0.99", libraries, note)
        record("lm_head_table", f"recall@{facts.k}", "share", [facts.recall_of_all], "", libraries, note)


def _watched(command: list[str]) -> tuple[float, float, float]:
    """Seconds of a process, and the most memory in MB that it had of its own, and with the files that it had mapped."""
    began, peaks = time.perf_counter(), {"Anonymous": 0.0, "Rss": 0.0}
    process = subprocess.Popen(command)
    while process.poll() is None:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for name, kilobytes in re.findall(r"^(Anonymous|Rss): +(\d+) kB", text, re.MULTILINE):
            peaks[name] = max(peaks[name], int(kilobytes) / 1024)
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{command[:6]} ended with {process.returncode}")
    return time.perf_counter() - began, peaks["Anonymous"], peaks["Rss"]
