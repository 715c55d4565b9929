"""Banks with a map, copied from a service and to a directory that is used like a bucket."""

from pathlib import Path

import numpy as np
import pytest

from costbank.bank import Bank, Store
from costbank.bank.manifest import MapFacts
from costbank.bank.maps import add_map
from costbank.remote import open_url, pull_bank, push_bank
from costbank.remote.copies import Copier
from costbank.remote.origins import FoundBank
from tests.remote.conftest import QUICK, listed
from tests.remote.relay import Relay
from tests.unit.recorded_progress import RecordedProgress


def _with_map(store: Path, seed: int) -> np.ndarray:
    """Give the only bank of a store a map, which is returned."""
    (stored,) = Store(store).banks()
    places = np.random.default_rng(seed).standard_normal((Bank(stored.path).size, 2)).astype(np.float32)
    add_map(stored.path, places, MapFacts(seed=seed, method="test", neighbors=2, kept=0.5, kept_of=2, sampled=10))
    return places


def test_a_map_is_pulled_with_its_bank(server: Relay, store: Path, cache: Path, tmp_path: Path):
    places = _with_map(store, 1)
    pulled = pull_bank(f"{server.url}/v1/banks/big", "mine", tmp_path / "target")
    np.testing.assert_array_equal(pulled.map(), places)
    assert pulled.manifest.map is not None
    assert pulled.manifest.map.seed == 1
    assert listed(tmp_path / "target") == [f"mine@{pulled.id}"]


@pytest.mark.parametrize("with_id", [False, True])
def test_a_map_that_is_replaced_during_a_download_is_downloaded_anew(
    server: Relay, store: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, with_id: bool
):
    _with_map(store, 1)
    (stored,) = Store(store).banks()
    find, later = Copier._find, []

    def find_then_replace(self: Copier) -> FoundBank:
        found = find(self)
        if not later:
            later.append(_with_map(store, 2))
        return found

    monkeypatch.setattr(Copier, "_find", find_then_replace)
    opened = open_url(f"{server.url}/v1/banks/big{f'@{stored.id}' if with_id else ''}", patience=QUICK)
    np.testing.assert_array_equal(opened.map(), later[0])
    assert listed(cache) == [f"big@{opened.id}"]


def test_a_map_is_pushed_with_its_bank_but_not_to_a_copy_without_one(store: Path, cache: Path, tmp_path: Path):
    (stored,) = Store(store).banks()
    assert push_bank(stored.path, f"file://{tmp_path}/plain/big").endswith(stored.id)
    places = _with_map(store, 1)
    push_bank(stored.path, f"file://{tmp_path}/mapped/big")
    np.testing.assert_array_equal(open_url(f"file://{tmp_path}/mapped/big", patience=QUICK).map(), places)
    progress = RecordedProgress()
    push_bank(stored.path, f"file://{tmp_path}/plain/big", progress=progress)
    assert [note for note in progress.notes if "stays without one" in note]
    assert listed(tmp_path / "plain") == [f"big@{stored.id}"]
    assert not Bank(tmp_path / "plain" / "big" / stored.id).has_map
