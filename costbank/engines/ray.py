"""Shards worked on by a Ray cluster: one that runs, or one started on this machine for the occasion."""

import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from costbank.engines.base import MOST_ATTEMPTS, ONE_THREAD_EACH, Report, Result, Shard, Work
from costbank.errors import CostbankError, EngineError, UsageError, require

__all__ = ["RayEngine"]

_LEAST_STORE_BYTES = 80 << 20
_CONNECT_SECONDS, _CLOSE_SECONDS = 10, 10
_QUEUED_PER_WORKER = 2
_NO_CLUSTER = "see `ray status`; without --ray-address one is started on this machine"


class RayEngine:
    """Tasks of a Ray cluster, a CPU each. Files pass between machines through `shared`, so all must see it.

    Args:
        address: of a running cluster, as `ray.init` takes it; None starts one on this machine.
        processes: tasks at a time, at most; None: as many as the cluster has CPUs.
        memory: bytes that the work may take on one machine.
        shared: a directory that every machine sees under this path, and may write in.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: no cluster answers, or a machine of it does not see `shared` or has another version of costbank.
    """

    def __init__(self, address: str | None, processes: int | None, memory: int, shared: Path) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._ray = require("ray", "scale")
        self._place: str | None = None
        self._opened = not self._ray.is_initialized()
        try:
            if self._opened:
                self._start(address, processes)
            cpus = [int(node["Resources"].get("CPU", 0)) for node in self._nodes()]
            self.workers = min(processes or sum(cpus), sum(cpus))
            if not self.workers:
                raise UsageError("the Ray cluster has no CPUs for tasks", "start its nodes with --num-cpus")
            self._most_queued = processes or _QUEUED_PER_WORKER * self.workers
            self.machine_memory = memory
            self.memory = memory // max(1, min(max(cpus), self.workers))
            self._check_nodes(shared)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(self, work: Work[Shard, Result], shards: Sequence[Shard], report: Report) -> Iterator[tuple[int, Result]]:
        task = self._ray.remote(_work_on).options(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")
        attempts, waiting, running = [0] * len(shards), list(range(len(shards)))[::-1], dict[Any, int]()
        try:
            while waiting or running:
                while waiting and len(running) < self._most_queued:
                    number = waiting.pop()
                    running[task.remote(work, shards[number])] = number
                (done,), _ = self._ray.wait(list(running), num_returns=1)
                number = running.pop(done)
                try:
                    result, amount = self._ray.get(done)
                except self._ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                except self._ray.exceptions.RayError as error:
                    attempts[number] += 1
                    if attempts[number] == MOST_ATTEMPTS:
                        raise EngineError(
                            f"the Ray worker of one shard died {MOST_ATTEMPTS} times over: {_first_line(error)}",
                            "give --memory that the machines have, or see Ray's logs; what is done is kept",
                        ) from error
                    waiting.append(number)
                    continue
                report(amount)
                yield number, result
        finally:
            for left in running:
                self._ray.cancel(left, force=True)

    def _start(self, address: str | None, processes: int | None) -> None:
        given: dict[str, Any] = {"address": address}
        if address is None:
            self._place = tempfile.mkdtemp(prefix="cbray-")  # short: sockets lie in it, whose paths may not be long
            given = {"num_cpus": processes, "object_store_memory": _LEAST_STORE_BYTES, "_temp_dir": self._place}
            given |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        elif place := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address):
            self._refuse_silent(address, place[1], int(place[2]))
        try:
            with _signals_later():
                self._ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=False, **given)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, AssertionError) as error:
            where = f"no Ray cluster answers at {address}" if address else "Ray does not start on this machine"
            raise UsageError(f"{where}: {_first_line(error)}", _NO_CLUSTER) from error

    def _refuse_silent(self, address: str, host: str, port: int) -> None:
        """Ray itself tries for many minutes."""
        try:
            socket.create_connection((host, port), _CONNECT_SECONDS).close()
        except OSError as error:
            raise UsageError(f"no Ray cluster answers at {address}: {error.strerror or error}", _NO_CLUSTER) from None

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _check_nodes(self, shared: Path) -> None:
        """See that each machine has this version of costbank, and the same files under the shared path."""
        strategies = require("ray.util.scheduling_strategies", "scale")
        shared.mkdir(parents=True, exist_ok=True)
        ours = version("costbank")
        with tempfile.NamedTemporaryFile(prefix=".seen-", dir=shared) as probe:
            asked = {}
            for node in self._nodes():
                if node["Resources"].get("CPU", 0) >= 1:
                    strategy = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
                    task = self._ray.remote(_look).options(num_cpus=1, scheduling_strategy=strategy)
                    asked[task.remote(probe.name)] = node["NodeManagerAddress"]
            for answer, machine in asked.items():
                try:
                    seen, theirs = self._ray.get(answer)
                except self._ray.exceptions.RayTaskError as error:
                    raise UsageError(
                        f"the Ray node {machine} cannot run costbank: {_first_line(_cause(error))}",
                        f"pip install 'costbank[build]=={ours}' on every machine of the cluster",
                    ) from None
                if theirs != ours:
                    raise UsageError(
                        f"the Ray node {machine} has costbank {theirs}, and this is {ours}",
                        "install one version on all",
                    )
                if not seen:
                    raise UsageError(
                        f"the Ray node {machine} does not see {shared}",
                        "give --cache DIR that lies on storage which all machines share, under one path",
                    )

    def _close(self) -> None:
        with _signals_later():
            self._stop()

    def _stop(self) -> None:
        if self._opened:
            self._ray.shutdown()
        until = time.monotonic() + _CLOSE_SECONDS
        while self._place and Path(self._place).exists() and time.monotonic() < until:
            shutil.rmtree(self._place, ignore_errors=True)  # Ray's processes write to it until they are gone
            time.sleep(0.05)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait: a cluster that is half started, or half stopped, would stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _work_on(work: Work[Any, Any], shard: Any) -> tuple[Any, int]:
    """In a worker: the result, and how much was done for it."""
    os.environ.update(ONE_THREAD_EACH)
    done: list[int] = []
    return work(shard, done.append), sum(done)


def _look(probe: str) -> tuple[bool, str]:
    return Path(probe).exists(), version("costbank")


def _cause(error: Any) -> BaseException:
    """What a task raised, as it would have been raised here."""
    cause = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, CostbankError):
        cause.hint = f"{cause.hint} (on a cluster, paths must be the same on every machine)".strip()
    return cause


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
