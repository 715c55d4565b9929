"""A process that adds a map is killed with SIGKILL at any step: the bank verifies, and is the old or the new one."""

import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from costbank.bank import Bank, LoadedBank, Store, verify_bank
from costbank.bank.manifest import MapFacts
from costbank.bank.maps import STEPS, add_map


def _facts(seed: int) -> MapFacts:
    return MapFacts(seed=seed, method="test", neighbors=4, kept=0.5, kept_of=2, sampled=10)


def _places(bank: Bank, seed: int) -> np.ndarray:
    places = np.random.default_rng(seed).standard_normal((bank.size, 2)).astype(np.float32)
    places[~bank.usable] = np.nan
    return places


def _add(path: str, seed: int, last_step: str) -> None:
    def on_step(step: str) -> None:
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    bank = Bank(Path(path))
    add_map(bank.path, _places(bank, seed), _facts(seed), on_step)


def _add_in_process(bank: Bank, seed: int, last_step: str) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_add, args=(str(bank.path), seed, last_step))
    process.start()
    process.join(60)
    return process.exitcode


def _seed_on_disk(path: Path) -> int | None:
    """The seed of the map of a bank that verifies, and whose map is the one of this seed; None without a map."""
    assert [check for check in verify_bank(path) if not check.ok] == []
    bank = Bank(path)
    if not bank.has_map:
        assert bank.manifest.map is None
        return None
    assert bank.manifest.map is not None
    np.testing.assert_array_equal(bank.map(), _places(bank, bank.manifest.map.seed))
    return bank.manifest.map.seed


@pytest.fixture
def bank(news_bank: Bank, tmp_path: Path) -> Bank:
    """A copy of the news bank, the latest of its name in a store."""
    shutil.copytree(news_bank.path, tmp_path / "news" / news_bank.id)
    (tmp_path / "news" / "latest").write_text(f"{news_bank.id}\n")
    return Bank(tmp_path / "news" / news_bank.id)


@pytest.mark.parametrize("step", [step for step in STEPS if step != "older map unlisted"])
def test_a_kill_leaves_the_bank_without_a_map_or_with_the_whole_map(bank: Bank, step: str):
    assert _add_in_process(bank, 1, step) == -signal.SIGKILL
    assert _seed_on_disk(bank.path) == (1 if step == "manifest renamed" else None)
    assert _add_in_process(bank, 1, "") == 0
    assert _seed_on_disk(bank.path) == 1
    assert sorted(path.name for path in bank.path.parent.iterdir()) == sorted([bank.id, "latest"])
    files = [*Bank(bank.path).manifest.files, "manifest.json"]
    assert sorted(path.name for path in bank.path.iterdir()) == sorted(files)


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_while_a_map_is_replaced_leaves_no_map_that_differs_from_the_manifest(bank: Bank, step: str):
    assert _add_in_process(bank, 1, "") == 0
    assert _add_in_process(bank, 2, step) == -signal.SIGKILL
    expected = {"staged": 1, "older map unlisted": None, "map renamed": None, "manifest renamed": 2}
    assert _seed_on_disk(bank.path) == expected[step]
    assert _add_in_process(bank, 3, "") == 0
    assert _seed_on_disk(bank.path) == 3


def test_readers_see_a_whole_bank_while_maps_come_and_go(bank: Bank):
    mapped, stop, wrong = Bank(bank.path), threading.Event(), []
    rows = mapped.vectors().copy()

    def read() -> None:
        while not stop.is_set():
            try:
                loaded = LoadedBank(bank.path)
                if loaded.has_map:
                    assert loaded.manifest.map is not None
                    np.testing.assert_array_equal(loaded.map(), _places(loaded, loaded.manifest.map.seed))
            except Exception as error:
                wrong.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for seed in range(20):
        add_map(bank.path, _places(bank, seed), _facts(seed))
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    np.testing.assert_array_equal(mapped.vectors(), rows)
    assert Store(bank.path.parents[1]).resolve("news") == bank.path
