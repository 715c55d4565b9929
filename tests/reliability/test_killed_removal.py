"""After a removal is killed with SIGKILL at any step, a store lists only whole banks, and the next one finishes it."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costbank.bank import Bank, Store, open_bank, prune_banks, remove_banks, verify_bank
from costbank.bank.removal import STEPS
from tests.service.banks import write_bank

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with three banks named bank, and their ids from the first to the last written."""
    store = tmp_path_factory.mktemp("banks")
    return store, [_write(store, n) for n in range(3)]


def _write(store: Path, number: int) -> str:
    tokens = [b" a%d" % i for i in range(40 + number)]
    return write_bank(store / "bank", tokens, dim=4, k=3, created=f"2026-01-0{number + 1}T00:00:00+00:00").id


@pytest.fixture
def store(ids: tuple[Path, list[str]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(ids[0], tmp_path / "store"))


def _remove(references: list[str], store: str, last_step: str, number: int) -> None:
    """Remove banks, in a process that is killed when it has done a step for this many times."""
    left = [number]

    def on_step(step: str) -> None:
        left[0] -= step == last_step
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    remove_banks(references, store, every=references == ["bank"], on_step=on_step)


def _in_process(function: Callable[..., None], *arguments: Any) -> int | None:
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def _listed(store: Path) -> set[str]:
    """The ids of the banks, all of which verify."""
    banks = list(Store(store).banks())
    assert [check for bank in banks for check in verify_bank(bank.path) if not check.ok] == []
    return {bank.id for bank in banks}


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_while_the_latest_bank_is_removed_leaves_whole_banks(
    store: Path, ids: tuple[Path, list[str]], step: str
):
    kept, latest = ids[1][:2], ids[1][2]
    status = _in_process(_remove, [f"bank@{latest}"], str(store), step, 1)
    assert status == -signal.SIGKILL
    assert _listed(store) == ({*kept, latest} if step == "latest moved" else set(kept))
    assert open_bank("bank", store).id == kept[1]
    removal = prune_banks(3, store=store)
    assert len(removal.leftovers) == (step in ("renamed", "directory synced", "latest removed"))
    assert _listed(store) == ({*kept, latest} if step == "latest moved" else set(kept))
    assert not list((store / "bank").glob(".*"))


@pytest.mark.parametrize(("step", "number"), [("renamed", n) for n in (1, 2, 3)] + [(s, 1) for s in STEPS[2:]])
def test_a_kill_while_all_banks_of_a_name_are_removed_leaves_a_name_that_opens_or_none(
    store: Path, ids: tuple[Path, list[str]], step: str, number: int
):
    assert _in_process(_remove, ["bank"], str(store), step, number) == -signal.SIGKILL
    left = _listed(store)
    assert len(left) == (3 - number if step == "renamed" else 0)
    if left:
        assert open_bank("bank", store).id == ids[1][2]
        remove_banks(["bank"], store, every=True)
    else:
        prune_banks(1, store=store)
    assert list(store.iterdir()) == []


def _build(store: str, rounds: int) -> None:
    for number in range(rounds):
        _write(Path(store), number % 3)


def _prune(store: str, rounds: int) -> None:
    for _ in range(rounds):
        prune_banks(1, store=store)


def test_banks_that_are_written_and_removed_at_the_same_time_are_whole(store: Path):
    work = [(_build, 8), (_build, 8), (_prune, 20)]
    processes = [CONTEXT.Process(target=function, args=(str(store), rounds)) for function, rounds in work]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        for bank in Store(store).banks():
            try:
                Bank(bank.path)
            except Exception:
                assert not bank.path.exists()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert _listed(store)
    assert open_bank("bank", store)
    assert not list((store / "bank").glob(".*"))
