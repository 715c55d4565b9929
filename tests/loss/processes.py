"""Checks that several processes run together, and what went wrong in any of them."""

import socket
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, multiprocessing

Check = Callable[[], None]


def failures(checks: Sequence[Check], processes: int, folder: Path) -> dict[str, str]:
    """Run the checks one after the other on processes joined by gloo; the tracebacks of those that failed, by name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_process, (processes, port, tuple(checks), folder), nprocs=processes)
    told: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        name, rank = path.name.rsplit("-", 1)
        told[name] = told.get(name, "") + f"process {rank}: {path.read_text()}\n"
    return told


def _process(rank: int, processes: int, port: int, checks: Sequence[Check], folder: Path) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    # Whoever waits for a process that has failed is told so after the timeout.
    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=20),
    )
    for check in checks:
        try:
            check()
        except BaseException:  # A failed assertion, whatever it is, is what there is to report.
            (folder / f"{check.__name__}-{rank}").write_text(traceback.format_exc())
    distributed.destroy_process_group()
