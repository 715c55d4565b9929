"""Shards worked on by processes of this machine."""

import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from multiprocessing import Pipe, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from costbank.engines.base import MOST_ATTEMPTS, ONE_THREAD_EACH, Report, Result, Shard, Work
from costbank.errors import EngineError, require

__all__ = ["LocalEngine", "run_in_child"]

_AMOUNT = struct.Struct("<q")
_READ_BYTES = 4096
_QUEUED_PER_WORKER = 2
_TICK_SECONDS = 0.5


class LocalEngine:
    """Processes that are started when there is work for several, and end with this one, however it ends.

    A single shard, or all of them where there is one worker, is worked on in this process.
    """

    def __init__(self, processes: int, memory: int) -> None:
        self.workers = processes
        self.memory, self.machine_memory = memory // processes, memory
        self._pool: _Pool | None = None

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(self, work: Work[Shard, Result], shards: Sequence[Shard], report: Report) -> Iterator[tuple[int, Result]]:
        if self.workers == 1 or len(shards) <= 1:
            for number, shard in enumerate(shards):
                yield number, work(shard, report)
            return
        left = dict.fromkeys(range(len(shards)))
        deaths = 0
        try:
            while left:
                try:
                    for number, result in self._pass(work, shards, list(left), report):
                        del left[number]
                        deaths = 0
                        yield number, result
                except _WorkersDiedError as death:
                    self._close()
                    deaths += 1
                    if deaths == MOST_ATTEMPTS:
                        raise EngineError(
                            f"a worker process was killed {MOST_ATTEMPTS} times over, most likely for want of memory",
                            "give fewer --processes, or --memory that the machine has; what is done is kept",
                        ) from death
        except BaseException:
            self._close()
            raise

    def _pass(
        self, work: Work[Shard, Result], shards: Sequence[Shard], numbers: list[int], report: Report
    ) -> Iterator[tuple[int, Result]]:
        pool = self._opened(min(self.workers, len(numbers)))
        died = require("concurrent.futures.process", "build").BrokenProcessPool
        waiting, running = iter(numbers), dict[Future[Any], int]()
        with pool.reporting(report):
            while True:
                while len(running) < _QUEUED_PER_WORKER * self.workers and (number := next(waiting, None)) is not None:
                    try:
                        running[pool.submit(work, shards[number])] = number
                    except died as death:  # which loky may know of before its futures do
                        raise _WorkersDiedError from death
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    if isinstance(done.exception(), died):
                        raise _WorkersDiedError from done.exception()
                    yield running.pop(done), done.result()

    def _opened(self, workers: int) -> "_Pool":
        """The pool, with so many processes at least."""
        if self._pool and self._pool.workers < workers:
            self._close()
        self._pool = self._pool or _Pool(workers)
        return self._pool

    def _close(self) -> None:
        if self._pool:
            self._pool.close()
        self._pool = None


def run_in_child(work: Work[Shard, Result], shard: Shard, report: Report, still_at_work: Callable[[], None]) -> Result:
    """Work on one shard in a process of its own, which ends with this one, and at once when this is interrupted.

    It is for libraries that neither report nor hear signals; `still_at_work` is called twice a second meanwhile.

    Raises:
        EngineError: the process was killed.
        Exception: whatever `work` raises.
    """
    died = require("concurrent.futures.process", "build").BrokenProcessPool
    pool = _Pool(1)
    try:
        with pool.reporting(report):
            future = pool.submit(work, shard)
            while not wait([future], timeout=_TICK_SECONDS).done:
                still_at_work()
        return future.result()
    except died as death:
        raise EngineError(
            "the process at work was killed, most likely because memory ran out", "give less text, or a larger machine"
        ) from death
    finally:
        pool.close()


class _WorkersDiedError(Exception):
    """Workers are gone, and with them what they worked on."""


class _Pool:
    """loky's processes, which need no guarded main module, and two pipes: what they have done, and whether we live."""

    def __init__(self, workers: int) -> None:
        loky = require("loky", "build")
        self.workers = workers
        self._reports, self._report_end = Pipe(duplex=False)
        ours, self._alive = Pipe(duplex=False)
        resource_tracker.ensure_running()  # its start lets signals through again, which `submit` holds back
        self._executor = loky.ProcessPoolExecutor(
            workers, initializer=_begin, initargs=(ours, self._report_end), env=ONE_THREAD_EACH
        )
        self._ours = ours

    def submit(self, work: Work[Any, Any], shard: Any) -> Future[Any]:
        with _no_interrupts():
            return self._executor.submit(_work_on, work, shard)

    def reporting(self, report: Report) -> "_Reporting":
        return _Reporting(self._reports, self._report_end, report)

    def close(self) -> None:
        self._executor.shutdown(kill_workers=True)
        for end in (self._reports, self._report_end, self._ours, self._alive):
            end.close()


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """What is started meanwhile, threads and processes, never gets a Ctrl-C.

    A terminal sends it to workers too, which would print a traceback each, or one of their imports; this process ends
    them. It gets its own as soon as it looks.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Reporting:
    """Passes on what the workers report, all of it by the end."""

    def __init__(self, reports: Connection, report_end: Connection, report: Report) -> None:
        self._reports, self._end, self._report = reports, report_end, report
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._pass_on, name="costbank-reports", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        os.write(self._end.fileno(), _AMOUNT.pack(-1))
        self._thread.join()
        if self._failure:
            raise self._failure

    def _pass_on(self) -> None:
        """Until the end, come what may: workers wait for a pipe that is full."""
        while True:
            amounts = [amount for (amount,) in _AMOUNT.iter_unpack(os.read(self._reports.fileno(), _READ_BYTES))]
            try:
                if not self._failure:
                    self._report(sum(amount for amount in amounts if amount > 0))
            except Exception as error:
                self._failure = error
            if -1 in amounts:
                return


_report_end: Connection | None = None


def _begin(alive: Connection, report_end: Connection) -> None:
    """In a worker: end at once when the process that started it is gone, by whatever."""
    global _report_end
    _report_end = report_end

    def watch() -> None:
        try:
            alive.recv()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch, name="costbank-watch", daemon=True).start()


def _work_on(work: Work[Any, Any], shard: Any) -> Any:
    return work(shard, _send)


def _send(amount: int) -> None:
    # So few bytes go into a pipe as one, whoever else writes; a lock would stay held by a worker that is killed.
    if _report_end is not None and amount > 0:
        os.write(_report_end.fileno(), _AMOUNT.pack(amount))
