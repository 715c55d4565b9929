"""Vector files of other tools, as these tools write them, and text files with mistakes in them."""

import gzip
import json
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from gensim.models import FastText, KeyedVectors, Word2Vec
from gensim.models.fasttext import save_facebook_model

from costbank.config import VectorsConfig, build_config
from costbank.errors import InputError
from costbank.sources import plan_source
from costbank.sources.vectors.wordfiles import open_word_file, read_word_file

WORDS = ["the", "cat", "sat", "king", "queen", "dog", "a", ". . ."]
DIM = 5
MARK = b"\xef\xbb\xbf"


@pytest.fixture
def rows(random: np.random.Generator) -> np.ndarray:
    return random.standard_normal((len(WORDS), DIM)).astype(np.float32).round(4)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("the\ncat\nsat\nking\nqueen\ndog\n")
    return tmp_path / "vocab.txt"


def _glove(rows: np.ndarray, separator: str = " ", words: list[str] = WORDS) -> bytes:
    lines = [separator.join([word, *map(str, row)]) for word, row in zip(words, rows.tolist(), strict=True)]
    return "".join(f"{line}\n" for line in lines).encode()


def _vec(rows: np.ndarray, header: str = f"{len(WORDS)} {DIM}") -> bytes:
    return f"{header}\n".encode() + _glove(rows)


def _words(path: Path) -> tuple[list[bytes], np.ndarray]:
    result = read_word_file(open_word_file(path), lambda _: True)
    return list(result.rows), result.vectors


@pytest.mark.parametrize("form", ["glove", "vec"])
@pytest.mark.parametrize("mark", [b"", MARK])
@pytest.mark.parametrize("name", ["v.txt", "v.gz", "v.vec"])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b" \n"])
def test_text_vectors_are_read_with_a_mark_compressed_and_with_any_line_ends(
    tmp_path: Path, rows: np.ndarray, form: str, mark: bytes, name: str, ends: bytes
):
    content = mark + (_glove(rows) if form == "glove" else _vec(rows)).replace(b"\n", ends)
    (tmp_path / name).write_bytes(gzip.compress(content) if name != "v.txt" else content)
    words, vectors = _words(tmp_path / name)
    assert words == [word.encode() for word in WORDS]
    assert np.array_equal(vectors, rows)


def test_a_binary_file_may_begin_with_a_mark(tmp_path: Path, rows: np.ndarray):
    vectors = KeyedVectors(DIM)
    vectors.add_vectors(WORDS[:-1], rows[:-1])
    vectors.save_word2vec_format(str(tmp_path / "v.bin"), binary=True)
    (tmp_path / "v.bin").write_bytes(MARK + (tmp_path / "v.bin").read_bytes())
    assert np.array_equal(_words(tmp_path / "v.bin")[1], rows[:-1])


@pytest.mark.parametrize("first", ["2 3", "new york 2", "nan", "1_000", "é", " ", ". . ."])
def test_the_size_of_vectors_does_not_hang_on_the_first_word(tmp_path: Path, rows: np.ndarray, first: str):
    words = [first, *WORDS[:-1]]
    (tmp_path / "v.txt").write_bytes(_glove(rows, words=words))
    result, vectors = _words(tmp_path / "v.txt")
    assert result == [word.strip(" ").encode() for word in words]
    assert np.array_equal(vectors, rows)


def test_words_in_another_encoding_are_no_binary_form(tmp_path: Path, rows: np.ndarray):
    content = f"{len(WORDS)} {DIM}\n".encode() + _glove(rows).replace(b"cat", b"caf\xe9")
    (tmp_path / "v.vec").write_bytes(content)
    assert _words(tmp_path / "v.vec")[0][1] == b"caf\xe9"


def _svmlight(rows: np.ndarray) -> bytes:
    return b"".join(b"%d 1:%.2f 4:%.2f # %d\n" % (i % 2, *row[:2], i) for i, row in enumerate(rows))


TEXT = {
    "PPMI": (lambda _: b"8 5\n" + b"".join(b"%s 0:0.12 3:7e-2\n" % word.encode() for word in WORDS), "sparse vectors"),
    "PPMI without a header": (lambda _: b"the 0:0.12 3:0.07\ncat 2:1\n", "sparse vectors"),
    "SVMlight": (_svmlight, "sparse vectors"),
    "SVMrank": (lambda _: b"1 qid:3 1:0.5 2:1\n" * 3, "sparse vectors"),
    "Matrix Market": (lambda _: b"%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 0.5\n", "Matrix Market"),
    "header with too many dimensions": (lambda rows: _vec(rows, "8 6"), "has 6 numbers per word, but its words have 5"),
    "header with too few dimensions": (lambda rows: _vec(rows, "8 4"), "has 4 numbers per word, but its words have 5"),
    "swapped": (lambda rows: _vec(rows, "5 8"), "has 8 numbers per word, but its words have 5"),
    "header with too many words": (lambda rows: _vec(rows, "9 5"), "has 9 words, but it has 8"),
    "header with too few words": (lambda rows: _vec(rows, "7 5"), "has 7 words, but it has 8"),
    "two files joined": (
        lambda rows: _glove(rows) + _glove(np.tile(rows, 2)),
        "line 9 of .* is not a word and 5 numbers",
    ),
    "commas": (lambda rows: _glove(rows, ","), "separates numbers with commas"),
    "semicolons": (lambda rows: _glove(rows, ";"), "separates numbers with semicolons"),
    "a table": (lambda rows: b"word,d0,d1,d2,d3,d4\n" + _glove(rows, ","), "separates numbers with commas"),
    "decimal commas": (
        lambda rows: _glove(rows).replace(b"0.", b"0,").replace(b"1.", b"1,"),
        "decimal commas instead of decimal points",
    ),
    "brackets": (lambda rows: b"".join(b"%s [%f %f]\n" % (b"w", *row[:2]) for row in rows), "in brackets"),
    "column names": (lambda rows: b"word d0 d1 d2 d3 d4\n" + _glove(rows), "line 1 of .* is not a word and a vector"),
    "JSON": (lambda rows: json.dumps({"the": rows[0].tolist()}).encode() + b"\n", "is JSON"),
    "floret": (lambda rows: b"8 5 2 3 5 2 < >\n" + _glove(rows), "floret"),
    "LFS": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "a Git LFS pointer"),
    "HTML": (lambda _: b"<!DOCTYPE html><html></html>\n", "an HTML page"),
    "UTF-16": (lambda rows: _glove(rows).decode().encode("utf-16"), "is UTF-16 text"),
    "UTF-16 without a mark": (lambda rows: _glove(rows).decode().encode("utf-16-le"), "is UTF-16 .*text"),
    "prose": (lambda _: b"It was the best of times.\nIt was the worst.\n", "is not a file in word2vec's"),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("case", TEXT)
def test_text_that_is_no_words_with_vectors_is_named(tmp_path: Path, rows: np.ndarray, case: str, compressed: bool):
    write, message = TEXT[case]
    content = write(rows)
    path = tmp_path / "v.txt"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(InputError, match=message) as caught:
        read_word_file(open_word_file(path), lambda _: True)
    assert caught.value.hint


@pytest.mark.parametrize("header", ["9 5", "8 6"])
def test_the_hint_corrects_a_header(tmp_path: Path, rows: np.ndarray, header: str):
    path = tmp_path / "v.vec"
    path.write_bytes(_vec(rows, header))
    with pytest.raises(InputError) as caught:
        read_word_file(open_word_file(path), lambda _: True)
    corrected = caught.value.hint.partition("sed '1s/.*/")[2].partition("/'")[0]
    path.write_bytes(_vec(rows, corrected))
    if header == "8 6":
        assert np.array_equal(_words(path)[1], rows)
    else:
        assert corrected == "8 5"


def _keyed(rows: np.ndarray) -> KeyedVectors:
    vectors = KeyedVectors(DIM)
    vectors.add_vectors(WORDS, rows)
    return vectors


def _sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table vectors (key text)")


SENTENCES = [["the", "cat", "sat"], ["the", "king"]] * 5
TOOLS = {
    "KeyedVectors.kv": (lambda path, rows: _keyed(rows).save(str(path)), "a gensim pickle", "save_word2vec_format"),
    "Word2Vec.model": (
        lambda path, _: Word2Vec(SENTENCES, vector_size=DIM, min_count=1, epochs=1).save(str(path)),
        "a gensim pickle",
        ".wv",
    ),
    "fastText.bin": (
        lambda path, _: save_facebook_model(
            FastText(SENTENCES, vector_size=DIM, min_count=1, epochs=1, bucket=10), str(path)
        ),
        "a fastText model",
        "load_facebook_vectors",
    ),
    "dict.pkl": (
        lambda path, rows: path.write_bytes(pickle.dumps(dict.fromkeys(WORDS, rows[0]))),
        "a Python pickle",
        "",
    ),
    "rows.pt": (lambda path, rows: torch.save(torch.from_numpy(rows), path), "a PyTorch file", "lm-head"),
    "csr.npz": (lambda path, rows: scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(rows)), "SciPy sparse", "dense"),
    "coo.npz": (lambda path, rows: scipy.sparse.save_npz(path, scipy.sparse.coo_matrix(rows)), "SciPy sparse", "dense"),
    "two.npz": (lambda path, rows: np.savez(path, a=rows), "an archive of NumPy arrays", "numpy.save"),
    "magnitude.magnitude": (lambda path, _: _sqlite(path), "an SQLite database", "numpy.save"),
    "variables.data-00000-of-00001": (lambda path, rows: path.write_bytes(rows.tobytes()), "TensorFlow", "numpy.save"),
    "variables.index": (
        lambda path, _: path.write_bytes(bytes(40) + bytes.fromhex("57fb808b247547db")),
        "TensorFlow checkpoint",
        "numpy.save",
    ),
    "lfs.npy": (
        lambda path, _: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "a Git LFS pointer",
        "git lfs pull",
    ),
    "csr.npy": (
        lambda path, rows: (
            scipy.sparse.save_npz(path.with_suffix(".npz"), scipy.sparse.csr_matrix(rows)),
            path.with_suffix(".npz").rename(path),
        ),
        "SciPy sparse",
        "dense",
    ),
    "html.safetensors": (lambda path, _: path.write_bytes(b"<!doctype html>"), "an HTML page", "download"),
}


@pytest.mark.parametrize("name", TOOLS)
def test_a_file_of_another_tool_is_named(tokenizer: Path, tmp_path: Path, rows: np.ndarray, name: str):
    write, message, hint = TOOLS[name]
    write(tmp_path / name, rows)
    config = build_config(
        source="vectors", tokenizer=tokenizer, store=tmp_path, vectors=VectorsConfig(path=tmp_path / name)
    )
    with pytest.raises(InputError, match=message) as caught:
        plan_source(config)
    assert hint in caught.value.hint


def test_a_checkpoint_by_its_prefix_is_named(tokenizer: Path, tmp_path: Path):
    (tmp_path / "model.ckpt-7.index").write_bytes(bytes(8))
    config = build_config(source="vectors", tokenizer=tokenizer, vectors=VectorsConfig(path=tmp_path / "model.ckpt-7"))
    with pytest.raises(InputError, match="part of a TensorFlow checkpoint"):
        plan_source(config)
