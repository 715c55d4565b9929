"""The local engine: worker processes on this machine."""

import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import Pipe, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from costbank.engines.base import MAX_ATTEMPTS, ONE_THREAD_EACH, Report, Result, Shard, Work
from costbank.errors import EngineError, require

__all__ = ["LocalEngine", "run_in_child"]

_AMOUNT = struct.Struct("<q")
_END = -1  # an amount that ends the reports; real amounts are positive
_PIPE_READ_BYTES = 4096
_QUEUED_PER_WORKER = 2
_POLL_SECONDS = 0.5
_STOP_SECONDS = 1.0


class LocalEngine:
    """Worker processes, started when first needed. They exit when this process exits, even if it is killed.

    With one worker or at most one shard, the work runs in this process.

    Args:
        processes: the number of worker processes.
        memory: bytes of memory that all workers may use together; each gets an equal share.
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
        remaining = dict.fromkeys(range(len(shards)))
        deaths = 0
        try:
            while remaining:
                try:
                    for number, result in self._run_once(work, shards, list(remaining), report):
                        del remaining[number]
                        deaths = 0
                        yield number, result
                except BrokenProcessPool as death:
                    self._close()
                    deaths += 1
                    if deaths == MAX_ATTEMPTS:
                        raise EngineError(
                            f"workers were killed {MAX_ATTEMPTS} times in a row, most likely because memory ran out",
                            "reduce --processes or --memory, then run the command again; finished parts are reused",
                        ) from death
        except BaseException:
            self._close()
            raise

    def _run_once(
        self, work: Work[Shard, Result], shards: Sequence[Shard], numbers: list[int], report: Report
    ) -> Iterator[tuple[int, Result]]:
        """Run the shards of these numbers, without retries.

        Raises:
            BrokenProcessPool: a worker died.
        """
        pool = self._pool_with(min(self.workers, len(numbers)))
        pending, running = iter(numbers), dict[Future[Any], int]()
        with pool.reporting(report):
            while True:
                while len(running) < _QUEUED_PER_WORKER * self.workers and (number := next(pending, None)) is not None:
                    running[pool.submit(work, shards[number])] = number
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done), done.result()

    def _pool_with(self, workers: int) -> "_Pool":
        """The pool of workers; a pool with fewer than `workers` processes is replaced."""
        if self._pool and self._pool.workers < workers:
            self._close()
        self._pool = self._pool or _Pool(workers)
        return self._pool

    def _close(self) -> None:
        if self._pool:
            self._pool.close()
        self._pool = None


def run_in_child(work: Work[Shard, Result], shard: Shard, report: Report, poll: Callable[[], None]) -> Result:
    """Process one shard in a child process. It exits when this process exits, and is killed if this one is interrupted.

    Use it for a library that neither reports progress nor handles signals. `poll` is called twice a second until the
    child is done.

    Raises:
        EngineError: the child process was killed.
        Exception: any exception that `work` raises.
    """
    pool = _Pool(1)
    try:
        with pool.reporting(report):
            future = pool.submit(work, shard)
            while not wait([future], timeout=_POLL_SECONDS).done:
                poll()
        return future.result()
    except BrokenProcessPool as death:
        raise EngineError(
            "the worker process was killed, most likely because memory ran out",
            "use less text, or a machine with more memory",
        ) from death
    finally:
        pool.close()


class _Pool:
    """loky's processes (they do not need `if __name__ == "__main__"`) and two pipes.

    Workers write amounts of finished work to one pipe. The other carries no data: its write end exists only in this
    process, so its read end reaches the end of file in every worker when this process exits.
    """

    def __init__(self, workers: int) -> None:
        loky = require("loky", "build")
        self.workers = workers
        self._reports, self._report_end = Pipe(duplex=False)
        self._parent_exit, self._alive = Pipe(duplex=False)
        self._forwarder: _ReportForwarder | None = None
        resource_tracker.ensure_running()  # starting it later would unblock the signals that `submit` blocks
        self._executor = loky.ProcessPoolExecutor(
            workers,
            initializer=_start_worker,
            initargs=(self._parent_exit, self._report_end),
            env=ONE_THREAD_EACH,
        )

    def submit(self, work: Work[Any, Any], shard: Any) -> Future[Any]:
        with _sigint_blocked():
            return self._executor.submit(_process_shard, work, shard)

    def reporting(self, report: Report) -> "_ReportForwarder":
        self._forwarder = _ReportForwarder(self._reports, self._report_end, report)
        return self._forwarder

    def close(self) -> None:
        self._executor.shutdown(kill_workers=True)
        if self._forwarder:
            self._forwarder.stop()
        for end in (self._reports, self._report_end, self._parent_exit, self._alive):
            end.close()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT; threads and processes that start inside the block inherit this.

    A terminal sends Ctrl-C to the workers too, and each would print a traceback. This process receives its own
    SIGINT after the block and kills the workers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _ReportForwarder:
    """A thread that passes the amounts from the workers' pipe to `report`; all are passed on before exit."""

    def __init__(self, reports: Connection, report_end: Connection, report: Report) -> None:
        self._reports, self._report_end, self._report = reports, report_end, report
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._forward, name="costbank-reports", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop(None)
        if self._failure:
            raise self._failure

    def stop(self, timeout: float | None = _STOP_SECONDS) -> None:
        """End the thread and wait until it has ended. It may have ended before.

        An interrupt can arrive while the thread starts. Then `__exit__` is not called, `join` refuses a thread that it
        takes for not started, and none may be there to wait for. So closing a pool calls this with a timeout.
        """
        if not self._ended.is_set():
            os.write(self._report_end.fileno(), _AMOUNT.pack(_END))
            self._ended.wait(timeout)

    def _forward(self) -> None:
        try:
            self._read_until_end()
        finally:
            self._ended.set()

    def _read_until_end(self) -> None:
        """Read the pipe until the end mark, even after `report` raises: workers block while the pipe is full."""
        while True:
            amounts = [amount for (amount,) in _AMOUNT.iter_unpack(os.read(self._reports.fileno(), _PIPE_READ_BYTES))]
            try:
                if not self._failure:
                    self._report(sum(amount for amount in amounts if amount > 0))
            except Exception as error:
                self._failure = error
            if _END in amounts:
                return


_report_end: Connection | None = None


def _start_worker(parent_exit: Connection, report_end: Connection) -> None:
    """Initialize a worker: it exits as soon as the parent process is gone."""
    global _report_end
    _report_end = report_end

    def watch() -> None:
        try:
            parent_exit.recv()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch, name="costbank-watch", daemon=True).start()


def _process_shard(work: Work[Any, Any], shard: Any) -> Any:
    return work(shard, _send)


def _send(amount: int) -> None:
    # A write of so few bytes to a pipe is atomic. A lock would stay locked after its worker is killed.
    if _report_end is not None and amount > 0:
        os.write(_report_end.fileno(), _AMOUNT.pack(amount))
