"""Checks that several processes run together, and what went wrong in any of them."""

import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

Check = Callable[[], None]


def failures(checks: Sequence[Check], processes: int, folder: Path) -> dict[str, str]:
    """Run the checks one after the other on processes joined by gloo, up to the first that fails.

    Returns:
        By name of the check the tracebacks of its processes, or that it was not run.
    """
    (folder / "told").mkdir()
    run_processes(_process, (processes, tuple(checks), folder), processes)
    told: dict[str, str] = {}
    for path in sorted((folder / "told").iterdir()):
        name, rank = path.name.rsplit("-", 1)
        told[name] = told.get(name, "") + f"process {rank}: {path.read_text()}\n"
    return told


def run_processes(function: Callable[..., None], arguments: tuple, processes: int, timeout_s: float = 240.0) -> None:
    """Run `function(rank, *arguments)` in fresh processes, and end those that do not end by themselves.

    They are forked from a server that has imported torch and the function's module and has done nothing with them, so
    that these imports, which take longer than most of what is run here, happen once for all processes of all tests.
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
    # Checks scale logits on purpose, whatever the objective.
    warnings.filterwarnings("ignore", message="temperature=.* divides the logits")
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), processes)
    # Whoever waits for a process that has failed is told so after the timeout.
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes, timeout=timedelta(seconds=20))
    failed = ""
    for check in checks:
        try:
            if failed:
                raise RuntimeError(f"it was not run, since {failed} failed")
            check()
            wrong = "no"
        except BaseException:  # A failed assertion, whatever it is, is what there is to report.
            (folder / "told" / f"{check.__name__}-{rank}").write_text(traceback.format_exc())
            wrong = "yes"
        # Not by a collective: after a failure processes are out of step, and one that meets another's ends them all.
        store.set(f"{check.__name__}-{rank}", wrong)
        if not failed and any(store.get(f"{check.__name__}-{other}") == b"yes" for other in range(processes)):
            failed = check.__name__
    distributed.destroy_process_group()
