import random as python_random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costbank.corpus.readers import (
    BadRecords,
    CorpusFile,
    DocumentRule,
    PartSizes,
    ReadOptions,
    parts_of,
    read_documents,
)
from costbank.corpus.readers.formats import WHOLE, Part
from costbank.errors import CorpusError, InputError, UsageError

RULES: tuple[DocumentRule, ...] = ("line", "paragraph")


def _text_file(path: Path) -> CorpusFile:
    return CorpusFile(str(path), "text", "none", path.stat().st_size)


def _documents(path: Path, rule: DocumentRule, part: Part = WHOLE, **sizes: int) -> list[str]:
    blocks = read_documents(_text_file(path), ReadOptions(rule), BadRecords(), part, **sizes)
    return [document for block, _ in blocks for document in block]


CASES = {
    "lines": (b"one\n two \n\n \nthree", ["one", " two ", "three"], ["one\n two ", "three"]),
    "CRLF": (b"one\r\ntwo\r\n\r\nthree\r\n", ["one", "two", "three"], ["one\ntwo", "three"]),
    "byte order mark": (b"\xef\xbb\xbfone\n", ["one"], ["one"]),
    "no text": (b"\n \n\t\n", [], []),
    "blank in Unicode": ("a\n\t\u3000\nb\n".encode(), ["a", "b"], ["a", "b"]),
    "other line ends stay": ("a\u2028b\x0cc\rd\n".encode(), ["a\u2028b\x0cc\rd"], ["a\u2028b\x0cc\rd"]),
}


@pytest.mark.parametrize(("content", "lines", "paragraphs"), CASES.values(), ids=CASES)
def test_documents_are_lines_or_paragraphs(tmp_path: Path, content: bytes, lines: list[str], paragraphs: list[str]):
    path = tmp_path / "text"
    path.write_bytes(content)
    assert _documents(path, "line") == lines
    assert _documents(path, "paragraph") == paragraphs


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_documents_do_not_depend_on_the_blocks_that_are_read(tmp_path: Path, block_bytes: int, line_end: str):
    path = tmp_path / "text"
    content = "höher\n\nzwei\ndrei 日本\n\n\n\nvier".replace("\n", line_end).encode()
    path.write_bytes(content)
    assert _documents(path, "line", block_bytes=block_bytes) == ["höher", "zwei", "drei 日本", "vier"]
    assert "\n".join(_documents(path, "paragraph", block_bytes=block_bytes)) == "höher\nzwei\ndrei 日本\nvier"
    for rule in RULES:
        blocks = read_documents(_text_file(path), ReadOptions(rule), BadRecords(), block_bytes=block_bytes)
        assert sum(used for _, used in blocks) == len(content)


def test_a_paragraph_is_whole_when_blank_lines_are_found(tmp_path: Path):
    path = tmp_path / "text"
    paragraphs = [f"{i}\n" + "word " * 50_000 for i in range(40)]
    path.write_text("\n\n".join(paragraphs))
    assert _documents(path, "paragraph") == paragraphs


@pytest.mark.parametrize(
    ("content", "offset", "line"),
    [(b"good\n" * 3 + b"bad\xff\n", 18, 4), (b"a\0b\n", 1, 1), (b"\xef\xbb\xbfx\xc3(\n", 4, 1), (b"a\r\nb\0", 4, 2)],
)
@pytest.mark.parametrize("block_bytes", [1, 1 << 22])
def test_invalid_text_is_refused_with_its_position(
    tmp_path: Path, block_bytes: int, content: bytes, offset: int, line: int
):
    path = tmp_path / "text"
    path.write_bytes(content)
    for rule in RULES:
        with pytest.raises(CorpusError, match=rf"{path} is not .* at offset {offset} \(line {line}\)") as caught:
            _documents(path, rule, block_bytes=block_bytes)
        assert "--on-error skip" in caught.value.hint


def test_token_ids_are_not_read_as_documents():
    with pytest.raises(UsageError, match="token ids"):
        read_documents(CorpusFile("x.bin", "nanogpt", "none", 2), ReadOptions(), BadRecords())


def test_a_file_that_has_gone_is_reported(tmp_path: Path):
    with pytest.raises(InputError, match="gone"):
        list(read_documents(CorpusFile(str(tmp_path / "gone"), "text", "none", 5), ReadOptions(), BadRecords()))


PIECES = st.sampled_from(
    ["a", "é", "日本", "𝄞", " ", "\t", "\u3000", "\r", "\n", "\r\n", "\n\n", "\r\n\r\n", "long " * 9]
)


@settings(deadline=None)
@given(
    pieces=st.lists(PIECES, max_size=60),
    mark=st.booleans(),
    part_bytes=st.integers(1, 40),
    block_bytes=st.integers(1, 40),
    rule=st.sampled_from(RULES),
)
def test_the_parts_of_a_text_together_are_the_text(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[str],
    mark: bool,
    part_bytes: int,
    block_bytes: int,
    rule: DocumentRule,
):
    path = tmp_path_factory.mktemp("parts") / "text"
    content = (b"\xef\xbb\xbf" if mark else b"") + "".join(pieces).encode()
    path.write_bytes(content or b"x")
    whole = _documents(path, rule)
    file = _text_file(path)
    cut = parts_of(file, rule, PartSizes(min_bytes=part_bytes, max_bytes=part_bytes))
    assert [text for part in cut for text in _documents(path, rule, part, block_bytes=block_bytes)] == whole
    blocks = [read_documents(file, ReadOptions(rule), BadRecords(), part, block_bytes) for part in cut]
    assert sum(used for block in blocks for _, used in block) == path.stat().st_size
    assert [part.start for part in cut[1:]] == [part.stop for part in cut[:-1]]
    assert whole == _plainly(content, rule) or not content


def _plainly(content: bytes, rule: DocumentRule) -> list[str]:
    """The documents of a text, split all at once."""
    documents: list[list[str]] = [[]]
    for line in content.decode("utf-8-sig").replace("\r\n", "\n").split("\n"):
        if not line.strip():
            documents.append([])
        elif rule == "line":
            documents.append([line])
        else:
            documents[-1].append(line)
    return ["\n".join(document) for document in documents if document]


def test_parts_depend_on_the_size_and_are_neither_small_nor_many(tmp_path: Path):
    random = python_random.Random(3)
    path = tmp_path / "text"
    path.write_text("".join("word " * random.randrange(40) + "\n" for _ in range(100_000)))
    cut = parts_of(_text_file(path), "line")
    assert len(cut) == -(-path.stat().st_size // (4 << 20))
    assert cut == parts_of(_text_file(path), "line")
    small = tmp_path / "small"
    small.write_text("one line\n")
    assert parts_of(_text_file(small), "line") == (Part(0, 9),)


def test_a_document_longer_than_several_parts_is_in_the_one_where_it_begins(tmp_path: Path):
    path = tmp_path / "text"
    path.write_text("a\n" + "b" * 100 + "\nc\n")
    cut = parts_of(_text_file(path), "line", PartSizes(min_bytes=10))
    assert [_documents(path, "line", part) for part in cut] == [["a", "b" * 100], ["c"]]
