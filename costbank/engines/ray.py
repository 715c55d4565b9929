"""The Ray engine: tasks of a running cluster, or of a temporary cluster on this machine."""

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

from costbank.engines.base import MAX_ATTEMPTS, ONE_THREAD_EACH, Report, Result, Shard, Work
from costbank.errors import CostbankError, EngineError, UsageError, require

__all__ = ["RayEngine"]

_OBJECT_STORE_BYTES = 80 << 20
_CONNECT_SECONDS, _CLOSE_SECONDS = 10, 10
_QUEUED_PER_WORKER = 2
_CLUSTER_HINT = "check the cluster with `ray status`, or leave --ray-address out to start a cluster on this machine"


class RayEngine:
    """Tasks of a Ray cluster, with one CPU each. The machines exchange files through the directory `shared`.

    Args:
        address: the address of a running cluster, as `ray.init` takes it. None: start a cluster on this machine.
        processes: the maximum number of tasks at a time. None: the number of CPUs of the cluster.
        memory: bytes of memory that the work may use on one machine.
        shared: a directory that every machine can access and write under this path.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: no cluster answers or it has no CPUs; or a node cannot access `shared`, cannot import costbank or
            has another version of it.
    """

    def __init__(self, address: str | None, processes: int | None, memory: int, shared: Path) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._ray = require("ray", "scale")
        self._temp_dir: str | None = None
        self._is_connection_ours = not self._ray.is_initialized()
        try:
            if self._is_connection_ours:
                self._start(address, processes)
            cpus = [int(node["Resources"].get("CPU", 0)) for node in self._nodes()]
            self.workers = min(processes or sum(cpus), sum(cpus))
            if not self.workers:
                raise UsageError("the Ray cluster has no CPUs for tasks", "start its nodes with --num-cpus=N")
            self._max_queued = processes or _QUEUED_PER_WORKER * self.workers
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
        task = self._ray.remote(_process_shard).options(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")
        attempts, pending, running = [0] * len(shards), list(range(len(shards)))[::-1], dict[Any, int]()
        try:
            while pending or running:
                while pending and len(running) < self._max_queued:
                    number = pending.pop()
                    running[task.remote(work, shards[number])] = number
                (done,), _ = self._ray.wait(list(running), num_returns=1)
                number = running.pop(done)
                try:
                    result, amount = self._ray.get(done)
                except self._ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                except self._ray.exceptions.RayError as error:
                    attempts[number] += 1
                    if attempts[number] == MAX_ATTEMPTS:
                        raise EngineError(
                            f"the Ray worker of one shard died {MAX_ATTEMPTS} times: {_first_line(error)}",
                            "check Ray's logs; if memory ran out, reduce --memory. Run the command again; finished "
                            "parts are reused",
                        ) from error
                    pending.append(number)
                    continue
                report(amount)
                yield number, result
        finally:
            for task_ref in running:
                self._ray.cancel(task_ref, force=True)

    def _start(self, address: str | None, processes: int | None) -> None:
        options: dict[str, Any] = {"address": address}
        if address is None:
            # A short path: Ray creates sockets in it, and the path of a socket has a length limit.
            self._temp_dir = tempfile.mkdtemp(prefix="cbray-")
            options = {"num_cpus": processes, "object_store_memory": _OBJECT_STORE_BYTES, "_temp_dir": self._temp_dir}
            options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        elif host_and_port := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address):
            self._check_port(address, host_and_port[1], int(host_and_port[2]))
        try:
            with _signals_deferred():
                self._ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=False, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, AssertionError) as error:
            problem = f"no Ray cluster answers at {address}" if address else "Ray cannot be started on this machine"
            raise UsageError(f"{problem}: {_first_line(error)}", _CLUSTER_HINT) from error

    def _check_port(self, address: str, host: str, port: int) -> None:
        """Fail within seconds if nothing listens at the address; Ray itself retries for minutes."""
        try:
            socket.create_connection((host, port), _CONNECT_SECONDS).close()
        except OSError as error:
            raise UsageError(f"no Ray cluster answers at {address}: {error.strerror or error}", _CLUSTER_HINT) from None

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _check_nodes(self, shared: Path) -> None:
        """Check that every node has this version of costbank and can access the directory `shared`."""
        strategies = require("ray.util.scheduling_strategies", "scale")
        shared.mkdir(parents=True, exist_ok=True)
        local_version = version("costbank")
        with tempfile.NamedTemporaryFile(prefix=".probe-", dir=shared) as probe:
            node_by_task = {}
            for node in self._nodes():
                if node["Resources"].get("CPU", 0) >= 1:
                    strategy = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
                    task = self._ray.remote(_probe_node).options(num_cpus=1, scheduling_strategy=strategy)
                    node_by_task[task.remote(probe.name)] = node["NodeManagerAddress"]
            for task_ref, node in node_by_task.items():
                try:
                    probe_exists, node_version = self._ray.get(task_ref)
                except self._ray.exceptions.RayTaskError as error:
                    raise UsageError(
                        f"the Ray node {node} cannot run costbank: {_first_line(_cause(error))}",
                        f"pip install 'costbank[build]=={local_version}' on every machine of the cluster",
                    ) from None
                if node_version != local_version:
                    raise UsageError(
                        f"the Ray node {node} has costbank {node_version}, but this machine has {local_version}",
                        f"pip install 'costbank[build]=={local_version}' on every machine of the cluster",
                    )
                if not probe_exists:
                    raise UsageError(
                        f"the Ray node {node} cannot access {shared}",
                        "set --cache to a directory on storage that all machines share under the same path",
                    )

    def _close(self) -> None:
        with _signals_deferred():
            if self._is_connection_ours:
                self._ray.shutdown()
            deadline = time.monotonic() + _CLOSE_SECONDS
            while self._temp_dir and Path(self._temp_dir).exists() and time.monotonic() < deadline:
                shutil.rmtree(self._temp_dir, ignore_errors=True)  # Ray's processes write to it until they exit
                time.sleep(0.05)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM after the block: processes of a half-started or half-stopped cluster would survive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {n: signal.signal(n, lambda number, _: received.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)


def _process_shard(work: Work[Any, Any], shard: Any) -> tuple[Any, int]:
    """In a worker: the result, and the amount of work that was reported."""
    os.environ.update(ONE_THREAD_EACH)
    amounts: list[int] = []
    return work(shard, amounts.append), sum(amounts)


def _probe_node(probe: str) -> tuple[bool, str]:
    """On a node: whether the file exists there, and the version of costbank."""
    return Path(probe).exists(), version("costbank")


def _cause(error: Any) -> BaseException:
    """The exception that the task raised, without Ray's wrapper."""
    cause = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, CostbankError):
        cause.hint = f"{cause.hint} (paths must be the same on every machine of the cluster)".strip()
    return cause


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
