"""Run checks on several processes together, and collect the failures of each process."""

import random
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

Check = Callable[[], None]


def free_port() -> int:
    """A port that nothing listens on, outside the range from which the kernel takes ports of outgoing connections."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def failures(checks: Sequence[Check], processes: int, folder: Path) -> dict[str, str]:
    """Run the checks one after the other on processes joined by gloo, until one fails.

    Returns:
        For each failed check, the tracebacks of its processes; for each check after it, a note that it did not run.
    """
    (folder / "failures").mkdir()
    run_processes(_process, (processes, tuple(checks), folder), processes)
    failed: dict[str, str] = {}
    for path in sorted((folder / "failures").iterdir()):
        name, rank = path.name.rsplit("-", 1)
        failed[name] = failed.get(name, "") + f"process {rank}: {path.read_text()}\n"
    return failed


def run_processes(function: Callable[..., None], arguments: tuple, processes: int, timeout_s: float = 240.0) -> None:
    """Run `function(rank, *arguments)` in fresh processes, and end those that do not end by themselves.

    They are forked from a server that has only imported torch and the function's module. These imports take longer than
    most of the checks, and so they happen once for all processes of all tests.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch.distributed", function.__module__])
    running: Any = multiprocessing.start_processes(
        function, arguments, nprocs=processes, join=False, start_method="forkserver"
    )
    until = time.monotonic() + timeout_s
    while not running.join(timeout=2):
        if time.monotonic() > until:
            for process in running.processes:
                process.kill()
            raise TimeoutError(f"processes ran for more than {timeout_s:.0f} s")


def _process(rank: int, processes: int, checks: Sequence[Check], folder: Path) -> None:
    warnings.simplefilter("error")
    # Checks scale logits on purpose, with any objective.
    warnings.filterwarnings("ignore", message="temperature=.* divides the logits")
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), processes)
    # A process that waits for a failed one gets an error after the timeout.
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes, timeout=timedelta(seconds=20))
    failed = ""
    for check in checks:
        try:
            if failed:
                raise RuntimeError(f"it did not run, because {failed} failed")
            check()
            has_failed = "no"
        except BaseException:  # Any exception is a failure to report.
            (folder / "failures" / f"{check.__name__}-{rank}").write_text(traceback.format_exc())
            has_failed = "yes"
        # Not with a collective: after a failure processes are out of step, and mismatched collectives end them all.
        store.set(f"{check.__name__}-{rank}", has_failed)
        if not failed and any(store.get(f"{check.__name__}-{other}") == b"yes" for other in range(processes)):
            failed = check.__name__
    distributed.destroy_process_group()
