"""Banks with a two-dimensional map of their tokens."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from costbank_service import Settings, create_app
from starlette.testclient import TestClient

from costbank.bank import Bank, BankWriter, LoadedBank, verify_bank
from costbank.bank.manifest import BankFacts, MapFacts, write_manifest
from costbank.bank.maps import add_map, check_can_add
from costbank.errors import BankNotFoundError, StorageError, UsageError
from tests.unit.small_bank import small_bank

ROWS = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [1.0, 1.0], "d": [0.0, 0.0]}
FACTS = MapFacts(seed=3, method="test", neighbors=2, kept=0.5, kept_of=2, sampled=3)
PLACES = np.array([[0, 1], [2, 3], [4, 5], [np.nan, np.nan]], np.float32)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return small_bank(tmp_path, ROWS, unseen=("d",))


def test_a_map_keeps_the_id_and_every_other_file(bank: Bank):
    before = {path.name: path.read_bytes() for path in bank.path.iterdir()}
    add_map(bank.path, PLACES, FACTS)
    mapped = Bank(bank.path)
    assert mapped.id == bank.id
    assert mapped.manifest.map == FACTS
    np.testing.assert_array_equal(mapped.map(), PLACES)
    np.testing.assert_array_equal(LoadedBank(bank.path).map(), PLACES)
    for name, data in before.items():
        assert ((bank.path / name).read_bytes() == data) == (name != "manifest.json")
    assert all(check.ok for check in verify_bank(bank.path))


def test_keys_of_later_versions_stay_in_the_manifest(bank: Bank):
    path = bank.path / "manifest.json"
    content = json.loads(path.read_bytes())
    del content["digest"]
    path.write_bytes(write_manifest({**content, "later": {"key": 1}}))
    add_map(bank.path, PLACES, FACTS)
    assert json.loads(path.read_bytes())["later"] == {"key": 1}


def test_a_bank_without_a_map_says_how_to_make_one(bank: Bank):
    assert not bank.has_map
    with pytest.raises(UsageError, match="has no map"):
        bank.map()


@pytest.mark.parametrize(("row", "places"), [(0, (np.nan, np.nan)), (3, (0.0, 0.0))])
def test_verify_finds_a_place_that_the_format_does_not_allow(bank: Bank, row: int, places: tuple[float, float]):
    wrong = PLACES.copy()
    wrong[row] = places
    add_map(bank.path, wrong, FACTS)
    assert [check.name for check in verify_bank(bank.path) if not check.ok] == ["map.safetensors"]


def test_verify_finds_a_changed_byte_of_the_map(bank: Bank):
    add_map(bank.path, PLACES, FACTS)
    data = bytearray((bank.path / "map.safetensors").read_bytes())
    data[-1] ^= 1
    (bank.path / "map.safetensors").write_bytes(data)
    assert [check.name for check in verify_bank(bank.path) if not check.ok] == ["map.safetensors"]


def test_a_removed_bank_gets_no_map(bank: Bank):
    shutil.rmtree(bank.path)
    with pytest.raises(BankNotFoundError, match="was removed"):
        add_map(bank.path, PLACES, FACTS)
    assert [path.name for path in bank.path.parent.iterdir()] == ["latest"]


def test_a_directory_that_cannot_be_written_is_refused(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    check_can_add(bank.path)
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != bank.path)
    with pytest.raises(StorageError, match="cannot write"):
        check_can_add(bank.path)


def _build_again(bank: Bank, places: np.ndarray, facts: MapFacts) -> None:
    """Write the same bank again, with a map."""
    content = json.loads((bank.path / "manifest.json").read_bytes())
    for derived in ("digest", "format", "id", "files", "map"):
        content.pop(derived, None)
    with BankWriter(bank.path.parent) as writer:
        writer.write_vectors((bank.size, bank.dim), "F32", [bank.vectors()])
        writer.write_tokens(bank.vocab)
        writer.write_neighbors(bank.neighbors)
        writer.write_map(places)
        manifest = BankFacts.model_validate({**content, "map": facts})
        assert writer.publish(manifest, lambda _: "another card\n") == bank.path


def test_a_build_adds_its_map_to_the_same_bank_without_one(bank: Bank):
    card = (bank.path / "README.md").read_bytes()
    _build_again(bank, PLACES, FACTS)
    np.testing.assert_array_equal(Bank(bank.path).map(), PLACES)
    _build_again(bank, PLACES + 1, FACTS.model_copy(update={"seed": 4}))
    assert Bank(bank.path).manifest.map == FACTS
    assert (bank.path / "README.md").read_bytes() == card
    assert all(check.ok for check in verify_bank(bank.path))


def test_the_service_notices_a_new_map(bank: Bank):
    app = create_app(Settings(store=bank.path.parents[1], refresh_ms=0))
    url = f"/v1/banks/bank@{bank.id}"
    with TestClient(app) as client:
        assert client.get(f"{url}/map").json()["code"] == "no-map"
        before = client.get(f"{url}/files/manifest.json").headers
        add_map(bank.path, PLACES, FACTS)
        assert client.get(f"{url}/map").json()["xy"] == [[0, 1], [2, 3], [4, 5], None]
        asked_again = {"If-None-Match": before["etag"]}
        assert client.get(f"{url}/files/manifest.json", headers=asked_again).status_code == 200
        for file, forever in (("manifest.json", False), ("map.safetensors", False), ("vectors.safetensors", True)):
            headers = client.get(f"{url}/files/{file}").headers
            assert ("immutable" in headers["cache-control"]) == forever
