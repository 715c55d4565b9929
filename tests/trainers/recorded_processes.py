"""Run a framework's training in several processes, with a record of what each of them trained on."""

import os
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.loss.processes import free_port, run_processes
from tests.trainers.plain_loop import grouped, logged_losses, record_training_steps


def train_in_processes(
    run: Callable[[Path], None], folder: Path, accumulated: int, processes: int = 2
) -> tuple[list[list[Any]], list[float]]:
    """Call `run(folder)` in processes with the variables that `accelerate launch --cpu` sets.

    Each process has trained on other batches, of which some have ignored labels.

    Args:
        run: a function of a module, which trains with a Trainer of transformers.
        folder: its argument; records are written there.
        accumulated: how many batches each process trains on in a step.
        processes: how many there are.

    Returns:
        The batches of all processes for each step, and the losses that the first process logged.
    """
    # The server that forks the processes may have started before this test set variables.
    variables = {name: value for name, value in os.environ.items() if name.startswith(("AXOLOTL_", "COSTBANK_"))}
    run_processes(_train, (processes, free_port(), run, folder, variables), processes)
    records = [torch.load(folder / f"record-{rank}.pt") for rank in range(processes)]
    each = [grouped(batches, accumulated) for batches, _ in records]
    assert {len(batches) for steps in each for batches in steps} == {accumulated}
    first, second = ([batch["input_ids"].tolist() for batch in chain(*steps)] for steps in each[:2])
    assert all(one != other for one, other in zip(first, second, strict=True))
    assert any((batch["labels"] == -100).any() for batches, _ in records for batch in batches)
    return [list(chain(*batches)) for batches in zip(*each, strict=True)], records[0][1]


def _train(
    rank: int, processes: int, port: int, run: Callable[[Path], None], folder: Path, variables: dict[str, str]
) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes,
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    os.environ.update({name: str(value) for name, value in names.items()} | variables)
    torch.set_num_threads(1)
    batches, trainers = record_training_steps(pytest.MonkeyPatch())
    run(folder)
    assert trainers[-1].args.world_size == processes
    torch.save((batches, logged_losses(trainers[-1])), folder / f"record-{rank}.pt")
    if torch.distributed.is_initialized():  # some trainers end it
        torch.distributed.barrier()
    # A normal exit would still tear down models and the process group, whose threads can deadlock.
    os._exit(0)
