"""Banks that are loaded, not mapped, give the same answers, whatever happens to the files."""

import os
import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest

from costbank.bank import Bank, LoadedBank
from costbank.errors import CorruptBankError, UsageError
from costbank.neighbors import nearest_in_index, nearest_rows
from costbank.tensorread import ChangedFileError, open_tensors
from costbank.transforms import normalize
from tests.service.banks import write_bank

TOKENS = [b" token%d" % i for i in range(300)]


@pytest.fixture(params=[True, False], ids=["index", "no index"])
def bank(request, tmp_path: Path) -> Bank:
    return write_bank(tmp_path / "store" / "random", TOKENS, index=request.param)


def _scan(bank: Bank, token: int, k: int) -> list[tuple[int, float]]:
    """All costs in float64 from the stored rows, rounded once, sorted by (cost, id): rules 10 and 11 of the format."""
    rows = bank.vectors().astype(np.float64)
    costs = np.maximum(1 - rows @ rows[token], 0).astype(np.float32)
    order = [int(i) for i in np.lexsort((np.arange(bank.size), costs)) if i != token]
    return [(i, float(str(costs[i]))) for i in order[:k]]


@pytest.mark.parametrize("k", [1, 4, 5, 50, 299])
def test_nearest_is_that_of_all_rows(bank: Bank, k: int):
    loaded = LoadedBank(bank.path)
    for token in (0, 7, 299):
        expected = _scan(bank, token, k)
        table = loaded.nearest_in_table(token, k)
        assert (table is None) == (k > 4)
        for answer in filter(None, (table, loaded.search_nearest(token, k), loaded.search_nearest(token, k, False))):
            assert answer.exact
            assert [(n.id, pytest.approx(n.cost, abs=1e-7)) for n in answer.neighbors] == expected
    for wrong in (0, 300):
        with pytest.raises(UsageError):
            loaded.search_nearest(0, wrong)


def test_ties_at_the_edge_are_searched_until_they_are_certain():
    """900 equal rows: an index proposes any of them, but the answer must have those with the smallest ids."""
    rows = normalize(np.random.default_rng(1).standard_normal((1_000, 8), np.float32))[0]
    rows[100:] = rows[100]
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(8))
    index.add_with_ids(rows, np.arange(1_000))
    requested = []

    class Counting:
        ntotal = index.ntotal

        def search(self, query: np.ndarray, k: int):
            requested.append(k)
            return index.search(query, k)

    ids, _ = nearest_in_index(Counting(), 500, rows.__getitem__, 20, flat=True)
    expected, _ = nearest_rows(500, rows.__getitem__, np.ones(1_000, bool), 20)
    assert ids.tolist() == expected.tolist() == list(range(100, 120))
    assert requested[-1] == 1_000


def test_a_bank_in_memory_outlives_its_files(bank: Bank):
    loaded = LoadedBank(bank.path)
    before = loaded.nearest_in_table(3, 4), loaded.search_nearest(3, 20)
    has_index = bank.manifest.index.kind == "flat"
    for path in bank.path.iterdir():
        os.truncate(path, 0)
    assert loaded.nearest_in_table(3, 4) == before[0]
    if has_index:
        assert loaded.search_nearest(3, 20) == before[1]
    else:
        with pytest.raises(ChangedFileError, match="ends at byte"):
            loaded.search_nearest(3, 20)
    shutil.rmtree(bank.path)
    assert loaded.nearest_in_table(3, 4) == before[0]


@pytest.mark.parametrize("name", ["tokens.safetensors", "neighbors.safetensors"])
def test_a_byte_that_was_changed_is_found_when_a_bank_is_loaded(bank: Bank, name: str):
    data = bytearray((bank.path / name).read_bytes())
    data[-1] ^= 1
    (bank.path / name).write_bytes(data)
    with pytest.raises(CorruptBankError, match=f"the sha256 of .*{name} differs from the manifest"):
        LoadedBank(bank.path)


def test_no_file_of_a_loaded_bank_is_mapped(bank: Bank):
    copy = bank.path.parents[1] / "copy" / bank.id  # the fixture's own bank is mapped
    shutil.copytree(bank.path, copy)
    loaded = LoadedBank(copy)
    loaded.search_nearest(3, 20)
    assert str(bank.path) in Path("/proc/self/maps").read_text("utf-8")
    assert str(copy) not in Path("/proc/self/maps").read_text("utf-8")
    assert loaded.resident_bytes == sum(
        (bank.path / name).stat().st_size
        for name in ("tokens.safetensors", "neighbors.safetensors", "index.faiss")
        if (bank.path / name).exists()
    )


def test_rows_of_an_open_file_are_the_rows(bank: Bank):
    tensor = open_tensors(bank.path / "vectors.safetensors")["vectors"]
    for chosen in (slice(None), slice(5, 9), slice(9, 5), slice(0, 300, 7), slice(290, 400), np.array([7, 0, 299, 7])):
        np.testing.assert_array_equal(tensor.float32(chosen), bank.vectors(chosen))


@pytest.mark.parametrize("same_bytes", [True, False])
def test_a_file_that_is_written_to_is_an_error_even_with_its_old_times(bank: Bank, same_bytes: bool):
    path = bank.path / "vectors.safetensors"
    tensor = open_tensors(path)["vectors"]
    facts, data = path.stat(), path.read_bytes()
    with path.open("r+b") as file:  # the same inode and length, as an rsync --inplace leaves it
        file.write(data if same_bytes else data[:-4] + b"\0\0\0\0")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(ChangedFileError, match="written to while it was open"):
        tensor.float32(slice(0, 2))


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_the_rows_of_a_file_that_is_replaced_or_removed_stay_what_they_were(bank: Bank, how: str):
    """Both change the file's ctime: it loses its name."""
    path = bank.path / "vectors.safetensors"
    expected = bank.vectors(slice(0, 3)).copy()
    tensor = open_tensors(path)["vectors"]
    if how == "removed":
        path.unlink()
    else:
        path.with_suffix(".new").write_bytes(b"something else")
        path.with_suffix(".new").replace(path)
    np.testing.assert_array_equal(tensor.float32(slice(0, 3)), expected)


def test_a_write_before_a_file_is_removed_is_an_error(bank: Bank):
    path = bank.path / "vectors.safetensors"
    tensor = open_tensors(path)["vectors"]
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\0")
    path.unlink()
    with pytest.raises(ChangedFileError, match="written to while it was open"):
        tensor.float32(slice(0, 3))
