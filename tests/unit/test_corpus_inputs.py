"""Which files a name, folder, pattern or URL stands for, and the detected format of each file."""

import gzip
import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
import zstandard

from costbank.corpus.readers import CorpusFile, FormatName, find_files, stdin_spool
from costbank.errors import InputError, InputNotFoundError, MissingExtraError, UsageError

LLMC = (20240520).to_bytes(4, "little")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(*names: str, content: bytes = b"text\n") -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _found(*given: str, format_name: FormatName = "auto") -> list[str]:
    return [file.location for file in find_files(given, format_name=format_name)]


def _one(name: str, format_name: FormatName = "auto") -> tuple[str, str]:
    (file,) = find_files([name], format_name=format_name)
    return file.format, file.compression


# Names


def test_files_come_in_the_order_in_which_they_are_named(here: Path):
    _write("b.txt", "a.txt", "c d.txt")
    assert find_files(["b.txt", "a.txt", f"file://{here}/c d.txt"]) == (
        CorpusFile("b.txt", "text", "none", 5),
        CorpusFile("a.txt", "text", "none", 5),
        CorpusFile(f"{here}/c d.txt", "text", "none", 5),
    )


def test_a_folder_is_searched_to_its_depths_in_the_order_of_names(here: Path):
    _write(
        "c/b/x.txt",
        "c/b.txt",
        "c/a/2.md",
        "c/a/10.TXT",
        "c/.hidden.txt",
        "c/.git/x.txt",
        "c/p.png",
        "c/q.png",
        "c/README",
    )
    notes: list[str] = []
    files = [file.location for file in find_files(["c"], note=notes.append)]
    assert files == ["c/a/10.TXT", "c/a/2.md", "c/b/x.txt", "c/b.txt"]
    assert notes == ["skipped files of other kinds: 2 .png, 1 without a suffix; to read such a file, name it"]


def test_a_pattern_is_expanded(here: Path):
    _write("c/1.txt", "c/2.txt", "c/10.txt", "c/d/3.txt", "c/.h.txt", "c/x.png", "c/y.log", "c/z")
    assert _found("c/?.txt") == ["c/1.txt", "c/2.txt"]
    assert _found("c/[12].txt") == ["c/1.txt", "c/2.txt"]
    assert _found("c/*") == ["c/1.txt", "c/10.txt", "c/2.txt"]
    assert _found("c/**/*.txt") == ["c/1.txt", "c/10.txt", "c/2.txt", "c/d/3.txt"]
    assert _found("**") == ["c/1.txt", "c/10.txt", "c/2.txt", "c/d/3.txt"]
    assert _found("c/*.log") == ["c/y.log"]
    assert _found("c/z*") == ["c/z"]
    assert _found("?/") == ["c/1.txt", "c/10.txt", "c/2.txt", "c/d/3.txt"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(here: Path):
    _write("a*.txt", "ab.txt", "[x].txt")
    assert _found("a*.txt") == ["a*.txt"]
    assert _found("[x].txt") == ["[x].txt"]
    assert _found("[xa]*.txt") == ["a*.txt", "ab.txt"]


def test_a_file_that_is_reached_twice_is_taken_once_at_its_first_place(here: Path):
    _write("c/a.txt", "c/b.txt")
    Path("link.txt").symlink_to("c/a.txt")
    notes: list[str] = []
    files = find_files(["c/b.txt", "c", "./c/*.txt", "link.txt", str(here / "c/a.txt")], note=notes.append)
    assert [file.location for file in files] == ["c/b.txt", "c/a.txt"]
    assert notes == ["named several times, but read once: 5 files"]


def test_links_to_folders_are_followed_but_not_round_in_circles(here: Path):
    _write("elsewhere/x.txt", "c/a.txt")
    Path("c/more").symlink_to(here / "elsewhere")
    Path("c/self").symlink_to(here / "c")
    assert _found("c") == ["c/a.txt", "c/more/x.txt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.txt", "gone.txt does not exist"),
        ("*.gone", r"no file matches \*.gone"),
        ("folder", "no file matches folder; files of other kinds: 1 .png"),
        ("blank", "no file matches blank; empty files: 1"),
        ("link", "link does not exist"),
    ],
)
def test_a_name_that_leads_to_no_file_is_an_error(here: Path, name: str, message: str):
    _write("folder/x.png")
    _write("blank/x.txt", content=b"")
    Path("link").symlink_to("nowhere")
    _write("good.txt")
    with pytest.raises(InputNotFoundError, match=message) as caught:
        find_files(["good.txt", name])
    assert caught.value.hint


def test_an_empty_file_is_an_error_by_itself_and_left_out_elsewhere(here: Path):
    _write("c/a.txt", "c/b.txt")
    _write("c/b.txt", "c/e.json", content=b"")
    notes: list[str] = []
    assert [file.name for file in find_files(["c"], note=notes.append)] == ["a.txt"]
    assert notes == ["skipped empty files: c/b.txt, c/e.json"]
    with pytest.raises(InputError, match=r"b\.txt is empty"):
        find_files(["c/b.txt"])


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_a_folder_that_may_not_be_read_is_an_error(here: Path):
    _write("c/d/a.txt")
    Path("c/d").chmod(0)
    with pytest.raises(InputError, match="c/d cannot be read"):
        find_files(["c"])


def test_an_empty_name_is_an_error():
    with pytest.raises(UsageError, match="name of a corpus file is empty"):
        find_files([""])


# Formats

TELLING = {
    "a.txt": ("text", "none"),
    "a.md": ("text", "none"),
    "a.log": ("text", "none"),
    "a": ("text", "none"),
    "a.jsonl": ("jsonl", "none"),
    "a.NDJSON": ("jsonl", "none"),
    "a.jsonl.gz": ("jsonl", "none"),  # compressed by its name alone
    "a.parquet": ("parquet", "none"),
    "a.npy": ("npy", "none"),
    "a.bin": ("nanogpt", "none"),
}


@pytest.mark.parametrize(("name", "expected"), TELLING.items(), ids=TELLING)
def test_the_suffix_tells_the_format(here: Path, name: str, expected: tuple[str, str]):
    _write(name)
    assert _one(name) == expected


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst", "a.gz"])
def test_the_first_bytes_tell_the_compression(here: Path, name: str):
    for content, compression in [
        (gzip.compress(b"x"), "gz"),
        (zstandard.compress(b"x"), "zst"),
        (b"\x5f\x2a\x4d\x18\0\0\0\0" + zstandard.compress(b"x"), "zst"),
        (b"BZhello", "none"),
    ]:
        _write(name, content=content)
        assert _one(name) == ("text", compression)


def test_a_format_that_is_given_is_the_format(here: Path):
    _write("a.txt", "b.dat", "c.jsonl")
    assert _one("a.txt", "jsonl") == ("jsonl", "none")
    assert _one("b.dat", "nanogpt") == ("nanogpt", "none")
    assert _one("c.jsonl", "text") == ("text", "none")
    assert _found(".", format_name="jsonl") == ["./c.jsonl"]
    assert _found("*.dat", format_name="jsonl") == ["b.dat"]


@pytest.mark.parametrize(
    ("content", "kind"), [(b"BZh91AY&SY\0", "bzip2"), (b"\xfd7zXZ\0\0", "xz"), (b"PK\x03\x04\0", "zip")]
)
def test_archives_that_are_not_read_are_named(here: Path, content: bytes, kind: str):
    _write("a.txt", content=content)
    with pytest.raises(InputError, match=f"a.txt is an? {kind} archive"):
        find_files(["a.txt"])


def test_token_ids_of_megatron_may_be_named_by_either_file_or_by_both(here: Path):
    _write("c/x.bin", "c/x.idx")
    for names in (["c/x.bin"], ["c/x.idx"], ["c/x"], ["c"], ["c/x.bin", "c/x.idx"], ["c/*"], ["c/*.idx"]):
        assert find_files(names) == (CorpusFile("c/x.bin", "megatron", "none", 5),)


def test_token_ids_of_datatrove_lie_beside_their_index(here: Path):
    _write("c/x.ds", "c/x.ds.index", "c/x.ds.metadata")
    for names in (["c/x.ds"], ["c/x.ds.index"], ["c"], ["c/*.ds"]):
        assert find_files(names) == (CorpusFile("c/x.ds", "datatrove", "none", 5),)


def test_a_mark_tells_the_ids_of_llmc(here: Path):
    _write("x.bin", content=LLMC + bytes(1020))
    assert _one("x.bin") == ("llmc", "none")


def test_ids_are_never_taken_for_an_archive(here: Path):
    _write("x.bin", content=gzip.compress(b"x"))
    assert _one("x.bin") == ("nanogpt", "none")
    _write("x.bin.gz", content=gzip.compress(b"x"))
    with pytest.raises(InputError, match="holds compressed token ids"):
        find_files(["x.bin.gz"])


@pytest.mark.parametrize(
    ("name", "format_name", "missing"),
    [("x.ds", "auto", "x.ds.index"), ("x.bin", "megatron", "x.idx"), ("y.idx", "auto", "y.bin")],
)
def test_the_index_next_to_token_ids_must_exist(here: Path, name: str, format_name: FormatName, missing: str):
    _write(name)
    with pytest.raises(InputNotFoundError, match=rf"{missing} does not exist"):
        find_files([name], format_name=format_name)


def test_json_is_read_when_it_is_one_object_a_line(here: Path):
    lines = b'{"text": "a"}\n\n{"text": "b"}\n'
    _write("c/a.json", "c/long.json", content=lines)
    _write("c/b.json.gz", content=gzip.compress(lines))
    _write("c/config.json", content=b'{"text": "a"}\n')
    _write("c/pretty.json", content=json.dumps([{"text": "a"}], indent=2).encode())
    assert _found("c") == ["c/a.json", "c/b.json.gz", "c/long.json"]
    assert _one("c/b.json.gz") == ("jsonl", "gz")
    assert _one("c/config.json") == ("jsonl", "none")
    with pytest.raises(InputError, match="holds a JSON array; a corpus needs one object per line") as caught:
        find_files(["c/pretty.json"])
    assert caught.value.hint == "convert it: jq -c '.[]' c/pretty.json > c/pretty.jsonl"
    _write("c/pretty.json", content=json.dumps({"text": "a"}, indent=2).encode())
    with pytest.raises(InputError, match="does not hold JSON lines; a corpus needs one object per line"):
        find_files(["c/*.json"])


def test_json_with_a_first_line_longer_than_is_read_ahead_is_taken(here: Path):
    _write("a.json", content=json.dumps({"text": "word " * 500_000}).encode() + b"\n")
    assert _one("a.json") == ("jsonl", "none")


# Standard input


def _pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"some text\n", ("text", "none")),
        (b'{"text": "a"}\n', ("jsonl", "none")),
        (gzip.compress(b'{"text": "a"}\n'), ("jsonl", "gz")),
        (zstandard.compress(b"some text"), ("text", "zst")),
        (b"PAR1....", ("parquet", "none")),
        (b"{not JSON}\n", ("text", "none")),
    ],
    ids=["text", "jsonl", "jsonl-gz", "text-zst", "parquet", "braces"],
)
def test_standard_input_is_kept_while_it_is_needed(
    here: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: tuple[str, str]
):
    _pipe(monkeypatch, content)
    with stdin_spool(here / "cache") as spool:
        (file,) = find_files(["-", "-"], spool=spool)
        assert file.path.read_bytes() == content
        assert (file.format, file.compression) == expected
        assert (file.size, file.name, file.shown) == (len(content), "standard input", "standard input")
    assert not file.path.exists()
    assert list(here.iterdir()) == []


def test_standard_input_takes_the_format_that_is_given(here: Path, monkeypatch: pytest.MonkeyPatch):
    _pipe(monkeypatch, b'{"text": "a"}\n')
    assert find_files(["-"], format_name="text", spool=here)[0].format == "text"


def test_standard_input_must_hold_something_and_have_a_place(here: Path, monkeypatch: pytest.MonkeyPatch):
    _pipe(monkeypatch, b"")
    with pytest.raises(InputError, match="standard input is empty"):
        find_files(["-"], spool=here)
    with pytest.raises(UsageError, match="standard input cannot be read here"):
        find_files(["-"])


# Other machines


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    for name in ("c/b.txt", "c/a.jsonl", "c/d/c.txt.gz", "c/x.png", "c/.hidden/y.txt"):
        filesystem.pipe(f"/{name}", gzip.compress(b"x") if name.endswith("gz") else b"text\n")
    filesystem.pipe("/c/empty.txt", b"")
    yield filesystem
    filesystem.rm("/", recursive=True)


def test_urls_of_files_folders_and_patterns_are_found(memory: fsspec.AbstractFileSystem):
    gz = len(gzip.compress(b"x"))
    assert find_files(["memory://c/b.txt"]) == (CorpusFile("memory://c/b.txt", "text", "none", 5),)
    notes: list[str] = []
    files = find_files(["memory://c/d/*.gz", "memory://c"], note=notes.append)
    assert files == (
        CorpusFile("memory:///c/d/c.txt.gz", "text", "gz", gz),
        CorpusFile("memory:///c/a.jsonl", "jsonl", "none", 5),
        CorpusFile("memory:///c/b.txt", "text", "none", 5),
    )
    assert files[0].is_remote
    assert notes[1:] == [
        "skipped empty files: memory:///c/empty.txt",
        "named several times, but read once: 1 file",
    ]
    assert _found("memory://c/**/*.txt") == ["memory:///c/b.txt"]


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("memory://c/gone.txt", InputNotFoundError, "memory://c/gone.txt does not exist"),
        ("memory://c/*.gone", InputNotFoundError, "no file matches memory://c/"),
        ("memory://c/empty.txt", InputError, "empty.txt is empty"),
        ("nothing://c", UsageError, "unknown URL scheme nothing://"),
        ("s3://bucket/a.txt", MissingExtraError, "s3:// URLs need .* s3fs"),
    ],
)
def test_urls_that_lead_nowhere_are_errors(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, url: str, error: type, message: str
):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(error, match=message):
        find_files([url])


def test_token_ids_on_other_machines_are_not_mapped(memory: fsspec.AbstractFileSystem):
    memory.pipe("/c/x.bin", b"ids.")
    with pytest.raises(InputError, match="holds token ids, which must be on a local disk") as caught:
        find_files(["memory://c/x.bin"])
    assert "copy" in caught.value.hint


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match="fsspec") as caught:
        find_files(["memory://c"])
    assert "costbank[corpus]" in caught.value.hint


def test_files_of_this_machine_need_no_fsspec(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    _write("a.txt")
    assert _found("a.txt", ".", "*.txt") == ["a.txt"]
