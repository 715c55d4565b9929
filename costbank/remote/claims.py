"""A claim: one process does a piece of work, and others wait for it, also on other machines with the same file system.

A claim is a file that exactly one process can create. Its owner writes to it every few seconds. A process that waits
removes the claim of an owner that has died on the same machine, or that has not written for a while by the waiting
process's own clock. Locks of the kernel are not used, because network file systems lose or ignore them.

A claim saves work, and nothing depends on it for correctness: an owner that was only paused may work again next to its
successor, so both must write into directories of their own, and publish by a rename.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ClaimTimes", "claimed"]

_BEATS_WIDTH = 12


@dataclass(frozen=True)
class ClaimTimes:
    """Seconds: between two signs of life of an owner, without one until it counts as dead, and between two looks."""

    beat: float = 5.0
    stale: float = 60.0
    look: float = 0.1


@contextmanager
def claimed(path: Path, is_done: Callable[[], bool], times: ClaimTimes, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Yield whether the caller has the claim and must do the work; false if it was done by another process meanwhile.

    Args:
        path: the file to create; its directory exists.
        is_done: whether the work is done.
        times: see `ClaimTimes`.
        on_wait: called once if another process has the claim.
    """
    owner = _acquire(path, is_done, times, on_wait)
    if owner is None:
        yield False
        return
    ended = threading.Event()
    threading.Thread(target=owner.beat, args=(ended, times.beat), name="costbank-claim", daemon=True).start()
    try:
        # The work may have been done between the first look and the claim.
        yield not is_done()
    finally:
        ended.set()
        owner.release()


class _Owner:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._facts = {"token": uuid.uuid4().hex, **_this_process()}
        self._lock = threading.Lock()
        self._beats = 0
        self._write()

    def _write(self) -> None:
        content = json.dumps({**self._facts, "beats": f"{self._beats:{_BEATS_WIDTH}}"}).encode()
        os.pwrite(self._descriptor, content, 0)

    def beat(self, ended: threading.Event, seconds: float) -> None:
        while not ended.wait(seconds):
            with self._lock, suppress(OSError):
                if not ended.is_set():
                    self._beats += 1
                    self._write()

    def release(self) -> None:
        with self._lock:
            os.close(self._descriptor)
        if _facts(_read(self._path)).get("token") == self._facts["token"]:
            self._path.unlink(missing_ok=True)


def _acquire(path: Path, is_done: Callable[[], bool], times: ClaimTimes, on_wait: Callable[[], None]) -> _Owner | None:
    """The claim, or None if the work is done."""
    last, changed = b"", time.monotonic()
    waits = False
    while not is_done():
        try:
            return _Owner(path, os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            content, now = _read(path), time.monotonic()
        if content is None:
            continue
        if content != last:
            last, changed = content, now
        if _has_died(_facts(content)) or now - changed > times.stale:
            _remove(path, content)
            continue
        if not waits:
            waits = True
            on_wait()
        time.sleep(times.look)
    return None


def _remove(path: Path, content: bytes) -> None:
    """Remove a claim, unless another process has just replaced it."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with suppress(OSError):
        path.rename(aside)
        if _read(aside) != content:  # this is the claim of a living process: put it back
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    # Opening the file, as opposed to `stat`, makes NFS ask its server.
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _facts(content: bytes | None) -> dict[str, Any]:
    """The content of a claim; empty if it is being written."""
    try:
        facts = json.loads(content or b"")
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _this_process() -> dict[str, Any]:
    """What tells this process from all others, on any machine; empty where it cannot be known."""
    try:
        return {"machine": _machine(), "process": os.getpid(), "started": _started(os.getpid())}
    except OSError:
        return {}


def _has_died(facts: dict[str, Any]) -> bool:
    """Whether the owner was a process on this machine, and is gone."""
    try:
        if facts["machine"] != _machine():
            return False
    except (KeyError, OSError):
        return False
    try:
        return _started(int(facts["process"])) != facts["started"]
    except (OSError, ValueError, KeyError):
        return True


def _machine() -> str:
    """This boot of this machine, and the namespace in which its process ids are valid."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _started(process: int) -> str:
    """When a process started, in the kernel's ticks.

    Raises:
        ProcessLookupError: it has ended.
        OSError: there is no such process.
    """
    # The name of the program, in parentheses, may contain anything.
    fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(process)
    return fields[19].decode()
