import json
import shutil
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
import safetensors.numpy

from costbank.bank import Bank, verify_bank
from costbank.bank.manifest import canonical
from costbank.errors import BankNotFoundError, CorruptBankError, ShapeError, TokenNotFoundError, UsageError


@pytest.fixture
def the(news_bank: Bank) -> int:
    return news_bank.vocab.find("▁the")


def test_the_files_are_safetensors_of_the_shapes_in_the_manifest(news_bank: Bank):
    vectors = safetensors.numpy.load_file(news_bank.path / "vectors.safetensors")["vectors"]
    assert vectors.shape == (news_bank.size, news_bank.dim) == (2_000, 24)
    assert np.array_equal(vectors, news_bank.vectors())
    tokens = safetensors.numpy.load_file(news_bank.path / "tokens.safetensors")
    assert {name: (array.dtype, array.shape) for name, array in tokens.items() if name != "bytes"} == {
        "offsets": (np.dtype("int64"), (2_001,)),
        "status": (np.dtype("uint8"), (2_000,)),
        "counts": (np.dtype("int64"), (2_000,)),
    }
    near = safetensors.numpy.load_file(news_bank.path / "neighbors.safetensors")
    assert near["ids"].shape == near["costs"].shape == (2_000, 64)


def test_nearest_is_brute_force_whatever_the_k(news_bank: Bank, the: int):
    vectors = news_bank.vectors().astype(np.float64)
    costs = (1 - vectors @ vectors[the]).astype(np.float32)
    others = [i for i in range(news_bank.size) if i != the and vectors[i].any()]
    expected = sorted(others, key=lambda i: (costs[i], i))
    for k in (1, 10, 64, 65, 300, news_bank.size - 1):
        neighbors = news_bank.nearest(the, k)
        assert [n.id for n in neighbors] == expected[:k]
        assert np.allclose([n.cost for n in neighbors], costs[expected[:k]], atol=1e-7)


def test_cost_is_symmetric_zero_to_itself_and_one_without_a_vector(news_bank: Bank, the: int):
    of, unseen = news_bank.vocab.find("▁of"), int(np.flatnonzero(news_bank.vocab.status == 4)[0])
    assert (
        news_bank.cost(the, of)
        == news_bank.cost(of, the)
        == pytest.approx(1 - news_bank.vectors()[the] @ news_bank.vectors()[of], abs=1e-6)
    )
    assert news_bank.cost(the, the) == 0
    assert news_bank.cost(the, unseen) == 1
    assert news_bank.cost(unseen, unseen) == 0
    matrix = news_bank.cost_matrix(np.array([the, unseen]), np.array([of, the, unseen]))
    assert matrix[0, 1] == matrix[1, 2] == 0
    assert matrix[0, 0] == np.float32(news_bank.cost(the, of))


def test_a_token_without_a_vector_has_no_neighbors(news_bank: Bank):
    assert news_bank.nearest(0, 5) == []
    assert not news_bank.has_vector(0)


def test_free_vectors_find_their_tokens(news_bank: Bank, the: int):
    direction = 3.5 * news_bank.vectors()[[the]]
    (neighbors,) = news_bank.search(direction, 4)
    assert neighbors[0].id == the
    assert neighbors[0].cost == pytest.approx(0, abs=1e-6)
    assert [n.id for n in neighbors[1:]] == [n.id for n in news_bank.nearest(the, 3)]


@pytest.mark.parametrize("k", [0, -1, 2_000, 10**9])
def test_a_k_that_cannot_be_is_refused(news_bank: Bank, the: int, k: int):
    with pytest.raises(UsageError, match="1,999 other tokens"):
        news_bank.nearest(the, k)


def test_ids_and_shapes_that_do_not_fit_are_refused(news_bank: Bank):
    for token_id in (-1, 2_000):
        with pytest.raises(TokenNotFoundError):
            news_bank.nearest(token_id, 1)
        with pytest.raises(TokenNotFoundError):
            news_bank.cost(0, token_id)
    with pytest.raises(ShapeError, match="dim 24"):
        news_bank.search(np.zeros((1, 25), np.float32))


def test_faiss_sees_no_byte_of_a_changed_index(news_bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / news_bank.id
    shutil.copytree(news_bank.path, path)
    index = path / "index.faiss"
    index.write_bytes(index.read_bytes()[:-1] + b"!")
    calls = []
    monkeypatch.setattr(faiss, "deserialize_index", calls.append)
    with pytest.raises(CorruptBankError, match=r"index\.faiss"):
        Bank(path).search(np.ones((1, 24), np.float32))
    assert calls == []


def test_a_missing_or_shorter_file_is_reported_on_opening(news_bank: Bank, tmp_path: Path):
    for name in news_bank.manifest.files:
        path = tmp_path / name.replace(".", "-")
        shutil.copytree(news_bank.path, path)
        with (path / name).open("rb+") as file:
            file.truncate(news_bank.manifest.files[name].size - 1)
        with pytest.raises(CorruptBankError, match=name):
            Bank(path)
        (path / name).unlink()
        with pytest.raises(CorruptBankError, match=f"{name} is missing"):
            Bank(path)
    with pytest.raises(BankNotFoundError):
        Bank(tmp_path)


def _rewrite(path: Path, change: dict[str, object]) -> None:
    """Change a manifest and its own digest, as a careless or hostile writer could."""
    from costbank.bank.manifest import write_manifest

    facts = json.loads((path / "manifest.json").read_text())
    facts.pop("digest")
    (path / "manifest.json").write_bytes(write_manifest(facts | change))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": 2}, "format 2"),
        ({"id": "0" * 16}, "has the id"),
        ({"config": {}}, "has the id"),
        ({"vectors": {"vocab": 1, "dim": 24, "dtype": "F32"}}, "should be"),
        ({"vectors": None}, "keys and values of format 1"),
        ({"files": {}}, "keys and values of format 1"),
    ],
)
def test_a_manifest_that_contradicts_the_files_is_refused(
    news_bank: Bank, tmp_path: Path, change: dict[str, object], problem: str
):
    path = tmp_path / "bank"
    shutil.copytree(news_bank.path, path)
    _rewrite(path, change)
    with pytest.raises(CorruptBankError, match=problem):
        Bank(path)


@pytest.mark.parametrize(
    "digest", [{"size": -1}, {"size": "many"}, {"sha256": "0"}, {"sha256": "G" * 64}, {"sha256": "a" * 65}]
)
def test_a_manifest_with_a_size_or_a_digest_that_cannot_be_is_refused(
    news_bank: Bank, tmp_path: Path, digest: dict[str, object]
):
    path = tmp_path / "bank"
    shutil.copytree(news_bank.path, path)
    files = json.loads((path / "manifest.json").read_text())["files"]
    _rewrite(path, {"files": {**files, "README.md": {**files["README.md"], **digest}}})
    with pytest.raises(CorruptBankError, match="does not have the keys and values of format 1"):
        Bank(path)


def test_unknown_keys_are_ignored(news_bank: Bank, tmp_path: Path):
    path = tmp_path / "bank"
    shutil.copytree(news_bank.path, path)
    files = json.loads((path / "manifest.json").read_text())["files"]
    later = {name: {**digest, "blake3": "0"} for name, digest in files.items()}
    _rewrite(path, {"novelty": {"a": 1}, "files": later})
    assert Bank(path).id == news_bank.id
    assert all(check.ok for check in verify_bank(path))


def test_the_manifest_says_where_the_bank_came_from(news_bank: Bank):
    manifest = news_bank.manifest
    assert manifest.facts["trained_tokens"] == manifest.facts["expected_tokens"] > 0
    assert manifest.inputs[0]["name"] == "lee_background.cor"
    assert manifest.libraries["gensim"] == "4.4.0"
    assert sum(manifest.status.values()) == news_bank.size
    assert manifest.config["word2vec"]["dim"] == 24
    assert manifest.neighbors.exact


def test_the_card_shows_the_bank_to_a_person(news_bank: Bank):
    card = (news_bank.path / "README.md").read_text("utf-8")
    assert news_bank.id in card
    assert "`▁" in card
    assert "exact" in card


def test_canonical_json_has_one_text():
    assert canonical({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'.encode()


def test_tokens_are_named_by_text_and_by_id(news_bank: Bank):
    the, of = news_bank.vocab.ids_of(b" the")[0], news_bank.vocab.ids_of(b" of")[0]
    for name in ("the", "▁the", f"id:{the}", "hex:20746865", np.int64(the)):
        assert news_bank.nearest(name, 3) == news_bank.nearest(the, 3)
        assert news_bank.cost(name, "of") == news_bank.cost(the, of)
    with pytest.raises(TokenNotFoundError, match="no token matches 'zzyzzx'"):
        news_bank.nearest("zzyzzx")
    with pytest.raises(TokenNotFoundError, match=r"no token matches '\\xe4\\xbd'\n"):
        news_bank.nearest(b"\xe4\xbd".decode("utf-8", "surrogateescape"))
    with pytest.raises(TokenNotFoundError, match="'id:99999999999999999999' is outside the vocabulary"):
        news_bank.nearest("id:99999999999999999999")


def test_a_value_that_names_no_token_is_refused(news_bank: Bank):
    code = f"import costbank; costbank.open_bank({str(news_bank.path)!r}).nearest([3])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "UsageError: a token must be a string or an id, not a list" in result.stderr


def test_lists_are_taken_for_arrays(news_bank: Bank, the: int):
    expected = news_bank.cost_matrix(np.array([the, 400]), np.array([500]))
    assert np.array_equal(news_bank.cost_matrix([the, 400], [500]), expected)
    assert np.array_equal(news_bank.cost_matrix(range(400, 402), [the]), news_bank.cost_matrix([400, 401], [the]))
    assert news_bank.cost_matrix([], [the]).shape == (0, 1)
    row = news_bank.vectors(np.array([the]))
    assert news_bank.search(row.tolist(), 3) == news_bank.search(row, 3)
