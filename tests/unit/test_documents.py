from pathlib import Path

import pytest

from costbank import files
from costbank.corpus import read_documents
from costbank.errors import CorpusError


def _documents(path: Path, rule: str) -> list[str]:
    return [document for block, _ in read_documents(path, rule) for document in block]


CASES = {
    "lines": (b"one\n two \n\n \nthree", ["one", " two ", "three"], ["one\n two ", "three"]),
    "CRLF": (b"one\r\ntwo\r\n\r\nthree\r\n", ["one", "two", "three"], ["one\ntwo", "three"]),
    "byte order mark": (b"\xef\xbb\xbfone\n", ["one"], ["one"]),
    "no text": (b"\n \n\t\n", [], []),
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
def test_documents_do_not_depend_on_the_blocks_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, line_end: str
):
    path = tmp_path / "text"
    content = "höher\n\nzwei\ndrei 日本\n\n\n\nvier".replace("\n", line_end).encode()
    path.write_bytes(content)
    monkeypatch.setattr(files, "_BLOCK_BYTES", block_bytes)
    assert _documents(path, "line") == ["höher", "zwei", "drei 日本", "vier"]
    assert "\n".join(_documents(path, "paragraph")) == "höher\nzwei\ndrei 日本\nvier"
    assert sum(size for _, size in read_documents(path, "line")) == len(content)


def test_a_paragraph_is_whole_when_blank_lines_are_found(tmp_path: Path):
    path = tmp_path / "text"
    paragraphs = [f"{i}\n" + "word " * 50_000 for i in range(40)]
    path.write_text("\n\n".join(paragraphs))
    assert _documents(path, "paragraph") == paragraphs


@pytest.mark.parametrize(
    ("content", "offset"), [(b"good\n" * 3 + b"bad\xff\n", 18), (b"a\0b\n", 1), (b"\xef\xbb\xbfx\xc3(\n", 4)]
)
def test_what_is_not_text_is_refused_with_its_offset(tmp_path: Path, content: bytes, offset: int):
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"offset {offset}\b"):
        _documents(path, "line")
