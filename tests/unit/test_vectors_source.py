"""Banks from existing vectors."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from safetensors.numpy import save_file

import costbank
from costbank.bank import Bank
from costbank.config import VectorsConfig, build_config
from costbank.errors import InputError, InputNotFoundError, UsageError
from costbank.progress import QuietProgress
from costbank.sources.vectors.wordfiles import open_word_file, read_word_file
from costbank.tokenizers import load_tokenizer

DIM = 6
WORDS = ["the", "King", "▁queen", "Ġtown", "naïve", "日本", "of"]


@pytest.fixture
def kv(random: np.random.Generator) -> KeyedVectors:
    vectors = KeyedVectors(DIM)
    vectors.add_vectors(WORDS, random.standard_normal((len(WORDS), DIM)).astype(np.float32))
    return vectors


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A byte-level tokenizer.json with word starts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = ["Ġthe", "the", "Ġking", "Ġqueen", "queen", "Ġtown", "naÃ¯ve", "xyz", "Ġof", "OF", "æ"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def _build(tokenizer: Path, store: Path, **settings) -> Bank:
    notes: list[str] = []
    progress = QuietProgress()
    progress.note = notes.append  # type: ignore[method-assign]
    config = build_config(
        source="vectors", tokenizer=tokenizer, store=store, name="v", vectors=VectorsConfig(**settings)
    )
    bank = costbank.build(config, progress)
    bank.notes = notes  # type: ignore[attr-defined]
    return bank


def _written(kv: KeyedVectors, path: Path, layout: str) -> Path:
    if layout == "glove":
        kv.save_word2vec_format(str(path))
        path.write_bytes(path.read_bytes().partition(b"\n")[2])
    else:
        kv.save_word2vec_format(str(path), binary=layout == "word2vec-binary")
    return path


LAYOUTS = ["word2vec-text", "word2vec-binary", "glove"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_word_file_is_read_as_gensim_reads_it(kv: KeyedVectors, tmp_path: Path, layout: str, compressed: bool):
    path = _written(kv, tmp_path / "v", layout)
    if compressed:
        path = tmp_path / "v.gz"
        path.write_bytes(gzip.compress((tmp_path / "v").read_bytes()))
    file = open_word_file(path)
    assert (file.layout, file.dim, file.words) == (layout, DIM, None if layout == "glove" else len(WORDS))
    word_file = read_word_file(file, lambda _: True)
    assert word_file.words == len(WORDS)
    form = "word2vec-text" if layout == "glove" else layout
    expected = KeyedVectors.load_word2vec_format(
        str(_written(kv, tmp_path / "expected", form)), binary=form == "word2vec-binary"
    )
    words = [word.encode() for word in WORDS]
    words[2:4] = [b" queen", b" town"]
    assert list(word_file.rows) == words
    assert np.array_equal(word_file.vectors, expected.vectors)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_meet_words_by_bytes_then_word_start_then_case(
    kv: KeyedVectors, tokenizer: Path, tmp_path: Path, layout: str
):
    bank = _build(tokenizer, tmp_path / "store", path=_written(kv, tmp_path / "v", layout))
    # Ġthe the Ġking Ġqueen queen Ġtown naïve xyz Ġof OF and a lone byte of a character
    words = [0, 0, 1, 2, 2, 3, 4, -1, 6, 6, -1]
    expected = np.array([kv.vectors[w] / np.linalg.norm(kv.vectors[w]) if w >= 0 else np.zeros(DIM) for w in words])
    assert np.allclose(bank.vectors(), expected, atol=1e-6)
    assert bank.manifest.status["unseen"] == 2
    facts = bank.manifest.facts
    counted = [facts[f"matched{how}"] for how in ("", "_exactly", "_by_word_start", "_in_lower_case")]
    assert counted == [9, 4, 3, 2]
    assert any("9 of 11 tokens have a vector: 4 by their exact bytes, 3" in note for note in bank.notes)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("match", "matched"), [("exact", 4), ("word-start", 7), ("folded", 9)])
def test_matching_has_three_levels(kv: KeyedVectors, tokenizer: Path, tmp_path: Path, match: str, matched: int):
    path = _written(kv, tmp_path / "v", "word2vec-text")
    assert _build(tokenizer, tmp_path / "store", path=path, match=match).manifest.facts["matched"] == matched


def test_words_with_spaces_and_words_that_come_twice(tmp_path: Path):
    (tmp_path / "glove.txt").write_text("the 1 2\n. . . 3 4\nthe 9 9\nqueen\t5\t6 \n")
    word_file = read_word_file(open_word_file(tmp_path / "glove.txt"), lambda _: True)
    assert word_file.rows == {b"the": 0, b". . .": 1, b"queen": 2}
    assert word_file.vectors.tolist() == [[1, 2], [3, 4], [5, 6]]


def _array(folder: Path, kind: str, rows: np.ndarray) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "npy":
        np.save(path, rows)
    else:
        save_file({"words": rows}, path)
    return path


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_array_and_the_list_of_its_words(kv: KeyedVectors, tokenizer: Path, tmp_path: Path, kind: str, dtype: str):
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    rows = kv.vectors.astype(dtype)
    path = _array(tmp_path, kind, rows)
    tensor = "words" if kind == "safetensors" else None
    bank = _build(tokenizer, tmp_path / "store", path=path, vocabulary=tmp_path / "words.txt", tensor=tensor)
    assert bank.manifest.facts["matched"] == 9
    wide = rows.astype(np.float32)
    assert np.allclose(bank.vectors()[3], wide[2] / np.linalg.norm(wide[2]), atol=1e-6)
    assert [file["name"] for file in bank.manifest.inputs] == [path.name, "words.txt"]


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_an_array_without_a_list_is_by_id(random: np.random.Generator, tokenizer: Path, tmp_path: Path, kind: str):
    rows = random.standard_normal((14, DIM)).astype(np.float32)
    rows[13] = np.nan
    bank = _build(tokenizer, tmp_path / "store", path=_array(tmp_path, kind, rows), tensor="words")
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    size = load_tokenizer(tokenizer).vocab.size
    assert np.allclose(bank.vectors()[:size], expected[:size], atol=1e-6)
    assert bank.size == 14
    assert bank.manifest.status["unused"] == 14 - size
    assert not bank.vectors()[size:].any(), "no text has these ids, so they are nobody's neighbors"
    assert bank.raw is not None
    unused = rows[size:13].mean(axis=0)
    assert np.allclose(bank.raw.to_unused[:size], expected[:size] @ unused / np.linalg.norm(unused), atol=1e-5)
    assert any("row i of rows" in note for note in bank.notes)  # type: ignore[attr-defined]


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("cut", [1, 30])
def test_a_file_that_is_cut_short_is_refused(kv: KeyedVectors, tokenizer: Path, tmp_path: Path, layout: str, cut: int):
    path = _written(kv, tmp_path / "v", layout)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match=r"has 7 words, but it has|ends within line 8"):
        _build(tokenizer, tmp_path / "store", path=path)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("damage", ["cut", "flipped", "checksum"])
def test_a_large_compressed_file_that_is_damaged_is_refused(
    random: np.random.Generator, tokenizer: Path, tmp_path: Path, layout: str, damage: str
):
    large = KeyedVectors(64)
    large.add_vectors([f"w{i}" for i in range(9_000)], random.standard_normal((9_000, 64)).astype(np.float32))
    packed = bytearray(gzip.compress(_written(large, tmp_path / "v", layout).read_bytes(), 1))
    if damage == "cut":
        packed = packed[: len(packed) * 4 // 5]
    elif damage == "flipped":
        packed[len(packed) * 4 // 5] ^= 0xFF
        packed[len(packed) * 4 // 5 + 1] ^= 0xFF
    else:
        packed[-6] ^= 1
    (tmp_path / "v.gz").write_bytes(packed)
    with pytest.raises(InputError, match=r"v\.gz"):
        _build(tokenizer, tmp_path / "store", path=tmp_path / "v.gz")


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("word_count", [b"3", b"9"])
def test_a_header_that_miscounts_is_refused(
    kv: KeyedVectors, tokenizer: Path, tmp_path: Path, layout: str, word_count: bytes
):
    path = _written(kv, tmp_path / "v", layout)
    path.write_bytes(word_count + path.read_bytes()[1:])
    with pytest.raises(InputError, match=f"has {word_count.decode()} words, but it has 7"):
        _build(tokenizer, tmp_path / "store", path=path)


def test_an_archive_of_arrays_is_no_array(tokenizer: Path, tmp_path: Path):
    np.savez(tmp_path / "v.npz", a=np.ones((20, 3)))
    (tmp_path / "v.npz").rename(tmp_path / "v.npy")
    with pytest.raises(InputError, match="archive of arrays"):
        _build(tokenizer, tmp_path / "store", path=tmp_path / "v.npy")


def test_a_compressed_file_that_is_cut_short_is_refused(kv: KeyedVectors, tokenizer: Path, tmp_path: Path):
    path = tmp_path / "v.gz"
    path.write_bytes(gzip.compress(_written(kv, tmp_path / "v", "glove").read_bytes())[:-40])
    with pytest.raises(InputError, match=r"v\.gz"):
        _build(tokenizer, tmp_path / "store", path=path)


BROKEN = {
    "a line short of a number": (b"the 1 2 3\nking 1 2\n", "line 2 of .* is not a word and 3 numbers"),
    "text instead of a number": (b"the 1 2 3\nof 1 x 3\n", "line 2 of .* is not a word and 3 numbers"),
    "no vectors": (b"It was the best of times.\nIt was the worst.\n", "not a file in word2vec's"),
    "nothing": (b"", "is empty"),
    "no word in common": (b"uno 1 2 3\ndos 1 2 3\n", "0 of the tokenizer's 11 tokens"),
    "an infinite vector": (b"the 1 2 3\nof 1 inf 3\n", "token 8 '▁of', from v, has NaN"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_unusable_vector_files_are_refused(tokenizer: Path, tmp_path: Path, case: str):
    content, message = BROKEN[case]
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(InputError, match=message):
        _build(tokenizer, tmp_path / "store", path=tmp_path / "v")


ARRAYS = {
    "of one axis": (np.ones(5), r"of shape \[5\]"),
    "of integers": (np.ones((20, 3), np.int64), "holds int64"),
    "of objects": (np.array([{}]), "not a .npy array of numbers"),
    "with too few rows": (np.ones((4, 3)), "has 4 rows, but the tokenizer has 11 tokens"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_do_not_fit_are_refused(tokenizer: Path, tmp_path: Path, case: str):
    array, message = ARRAYS[case]
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        _build(tokenizer, tmp_path / "store", path=tmp_path / "v.npy")


def test_far_more_rows_than_tokens_are_no_token_ids(tokenizer: Path, tmp_path: Path):
    rows = np.random.default_rng(1).normal(size=(30, 4))
    np.save(tmp_path / "v.npy", rows)
    with pytest.raises(
        InputError, match="has 30 rows, but the tokenizer has 11 tokens: rows are probably not token ids"
    ) as caught:
        _build(tokenizer, tmp_path / "store", path=tmp_path / "v.npy")
    assert "vectors.rows_are_ids=true" in caught.value.hint
    assert _build(tokenizer, tmp_path / "store", path=tmp_path / "v.npy", rows_are_ids=True).size == 30
    # If nothing would be refused, the setting changes nothing.
    np.save(tmp_path / "v.npy", rows[:12])
    one, other = (_build(tokenizer, tmp_path / "s", path=tmp_path / "v.npy", rows_are_ids=on) for on in (False, True))
    assert one.id == other.id


def test_a_list_of_another_length_is_refused(tokenizer: Path, tmp_path: Path):
    np.save(tmp_path / "v.npy", np.ones((20, 3)))
    (tmp_path / "words.txt").write_text("one\ntwo\n")
    with pytest.raises(InputError, match="lists 2 words, but there are 20 rows"):
        _build(tokenizer, tmp_path / "store", path=tmp_path / "v.npy", vocabulary=tmp_path / "words.txt")


def test_a_missing_input_is_named(tokenizer: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="needs a file of vectors"):
        _build(tokenizer, tmp_path)
    with pytest.raises(InputNotFoundError, match=r"nothing\.txt"):
        _build(tokenizer, tmp_path, path=tmp_path / "nothing.txt")
