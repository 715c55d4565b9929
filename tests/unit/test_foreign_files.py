"""Files that have a corpus file's name but other content: they are refused, forced with an option, or skipped."""

import gzip
import io
import pickle
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from safetensors.numpy import save

from costbank.corpus.readers import WHOLE, BadRecords, ReadOptions, find_files, read_documents
from costbank.errors import CorpusError, InputError

TEXT = "the cat sat on the mat\nthe king and the queen ran\n"
MARK = b"\xef\xbb\xbf"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _documents(*names: str, on_error: str = "refuse", format_name: str = "auto") -> list[str]:
    bad = BadRecords(on_error)
    files = find_files(names, format_name=format_name, on_error=on_error)
    return [text for file in files for texts, _ in read_documents(file, ReadOptions(), bad, WHOLE) for text in texts]


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"text\n"))
    return buffer.getvalue()


def _saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _table() -> pa.Table:
    return pa.table({"text": ["a"]})


def _parquet() -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(_table(), buffer)
    return buffer.getvalue()


def _arrow(new: object) -> bytes:
    buffer = io.BytesIO()
    with new(buffer, _table().schema) as writer:
        writer.write_table(_table())
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
HTML = b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n"
FOREIGN = {
    "lfs": (LFS, "is a Git LFS pointer", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s12--ab.txt\n", "is a git-annex pointer", "git annex get"),
    "html": (HTML, "is an HTML page", "download the file again"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "error message in XML", "download"),
    "pdf": (b"%PDF-1.7\n", "is a PDF document", "pdftotext"),
    "rtf": (b"{\\rtf1\\ansi x}", "is an RTF document", "UTF-8"),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "Microsoft Office", "UTF-8"),
    "tar": (_tar(), "is a tar archive", "tar -xf"),
    "rar": (b"Rar!\x1a\x07\0x", "is a rar archive", "unrar"),
    "parquet": (_parquet(), "is a Parquet file", "corpus.format=parquet"),
    "arrow": (_arrow(pa.ipc.new_file), "is an Arrow file", "to_parquet"),
    "stream": (_arrow(pa.ipc.new_stream), "is an Arrow stream", "to_parquet"),
    "npy": (_saved(np.arange(9)), "is a NumPy array", "corpus.format=npy"),
    "pickle": (pickle.dumps(["a"]), "is a Python pickle", "text"),
    "safetensors": (save({"a": np.zeros(2, np.float32)}), "is a safetensors file", "text"),
    "sqlite": (b"SQLite format 3\0", "is an SQLite database", "text"),
    "png": (b"\x89PNG\r\n\x1a\n", "is a PNG image", "text"),
    "gz in gz": (gzip.compress(b"x"), "is a gzip archive", "compressed twice"),
    "utf-16": (TEXT.encode("utf-16"), "is UTF-16 text, but a corpus must be UTF-8", "iconv -f UTF-16 -t UTF-8"),
    "utf-16-be": (TEXT.encode("utf-16-be"), "is UTF-16 .without a byte-order mark. text", "iconv -f UTF-16BE"),
    "utf-32": (TEXT.encode("utf-32"), "is UTF-32 text", "iconv -f UTF-32"),
    "utf-32-le": (TEXT.encode("utf-32-le"), "is UTF-32 .without a byte-order mark. text", "iconv -f UTF-32LE"),
    "jis": ("私は昨日\n".encode("iso2022_jp"), "is ISO-2022-JP text", "iconv -f ISO-2022-JP"),
}
ARCHIVES = {
    "zip": (_zip("a.txt"), "is a zip archive", "unzip"),
    "docx": (_zip("[Content_Types].xml", "word/document.xml"), "is a Microsoft Office document", "plain text"),
    "torch": (_zip("ids/data.pkl"), "is a PyTorch file", "numpy.save"),
    "npz": (_zip("arr_0.npy"), "is an archive of NumPy arrays", "numpy.save"),
}


@pytest.mark.parametrize(("content", "message", "hint"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz", "a.txt.zst"])
def test_a_file_that_is_something_else_is_named(here: Path, name: str, content: bytes, message: str, hint: str):
    if name in ("a.txt", "a.jsonl") and content.startswith(b"\x1f\x8b"):
        pytest.skip("a gzip file under any name is read")
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(Path(name).suffix, bytes)
    Path(name).write_bytes(pack(content))
    with pytest.raises(CorpusError, match=message) as caught:
        find_files([name])
    assert hint in caught.value.hint
    # If the file is text in another encoding, the hint offers no option that reads it anyway.
    assert ("to read it anyway" in caught.value.hint) is not (" text" in message)
    Path("folder").mkdir()
    Path(name).rename(f"folder/{name}")
    with pytest.raises(CorpusError, match=f"folder/{name} .*{message}"):
        find_files(["folder"])


@pytest.mark.parametrize(("content", "message", "hint"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_of_several_files_is_named_by_what_it_is(here: Path, content: bytes, message: str, hint: str):
    for name in ("a.txt", "a.bin"):
        Path(name).write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            find_files([name])
        assert hint in caught.value.hint


def test_a_format_that_is_given_is_believed(here: Path):
    Path("a.txt").write_bytes(HTML)
    assert _documents("a.txt", format_name="text") == ["<!DOCTYPE html>", "<html><body>404</body></html>"]
    Path("page.html").write_bytes(HTML)
    assert _documents("page.html") == ["<!DOCTYPE html>", "<html><body>404</body></html>"]
    Path("b.txt").write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(CorpusError, match=r"b\.txt is UTF-16 text, not UTF-8, at offset 3 \(line 1\)") as caught:
        _documents("b.txt", format_name="text")
    assert caught.value.hint.startswith("convert it: iconv -f UTF-16 -t UTF-8")


def test_skipping_leaves_a_foreign_file_out_and_says_so(here: Path):
    Path("c").mkdir()
    Path("c/a.txt").write_bytes(TEXT.encode("utf-16"))
    Path("c/b.txt").write_text(TEXT)
    notes: list[str] = []
    assert [file.name for file in find_files(["c"], on_error="skip", note=notes.append)] == ["b.txt"]
    assert notes == ["skipped files that cannot be read:\n  c/a.txt is UTF-16 text, but a corpus must be UTF-8"]
    with pytest.raises(CorpusError, match="UTF-16"):
        find_files(["c/a.txt"], on_error="skip")


def test_standard_input_in_utf16_is_named(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT.encode("utf-16"))))
    with pytest.raises(CorpusError, match=r"^standard input is UTF-16 text") as caught:
        find_files(["-"], spool=here)
    assert str(here) not in caught.value.hint


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [("Voilà, déjà l'été, à côté\n", "latin-1", "Latin-1 or Windows-1252"),
     ("私は昨日、図書館で本を読みました。\n", "shift_jis", "Shift-JIS"),
     ("我们在这个世界上要去看一看那些美丽的山水。\n", "gbk", "GBK or GB18030")],
)  # fmt: skip
def test_another_encoding_is_guessed_with_the_place_of_its_first_byte(here: Path, text: str, codec: str, name: str):
    Path("a.txt").write_bytes(b"plain\n" + text.encode(codec))
    with pytest.raises(
        CorpusError, match=rf"a\.txt is not UTF-8: byte 0x.. \(it looks like {name}\) at offset"
    ) as caught:
        _documents("a.txt")
    assert re.match(r"convert it: iconv -f \S+ -t UTF-8 a\.txt > a\.utf8\.txt", caught.value.hint)
    assert caught.value.hint.endswith("use --on-error skip to skip such records")


# Byte-order marks


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_a_byte_order_mark_is_skipped_in_text_wherever_files_were_joined(here: Path, name: str):
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(Path(name).suffix, bytes)
    Path("0.txt").write_bytes(MARK + b"first\n")
    Path(name).write_bytes(pack(MARK + b"one\r\n" + MARK + b"two\nth\xef\xbb\xbfree\n"))
    assert _documents(".") == ["first", "one", "two", "th\ufeffree"]
    damaged = MARK + b"one\n" + MARK + b"two\nb\xffd\n"
    Path(name).write_bytes(pack(damaged))
    assert _documents(name, on_error="skip") == ["one", "two"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_byte_order_mark_is_skipped_in_json_lines(here: Path, name: str):
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(Path(name).suffix, bytes)
    Path(name).write_bytes(pack(MARK + b'{"text": "one"}\n' + MARK + b'{"text": "two"}\n'))
    assert _documents(name) == ["one", "two"]


def test_a_byte_order_mark_is_skipped_on_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(MARK + b'{"text": "one"}\n')))
    (file,) = find_files(["-"], spool=here)
    ((texts, _),) = read_documents(file, ReadOptions(), BadRecords(), WHOLE)
    assert (file.format, texts) == ("jsonl", ["one"])
