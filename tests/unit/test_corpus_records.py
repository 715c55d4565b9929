"""Records of text, JSON lines and Parquet: documents, and how bad records are handled."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costbank.corpus.readers import BadRecord, BadRecords, CorpusFile, PartSizes, ReadOptions, parquet, parts_of
from costbank.corpus.readers import read_documents as read
from costbank.corpus.readers.formats import WHOLE, FileFormat, Part
from costbank.errors import CorpusError


def _file(path: Path, kind: FileFormat) -> CorpusFile:
    return CorpusFile(str(path), kind, "none", path.stat().st_size)


def _texts(
    file: CorpusFile, bad: BadRecords, options: ReadOptions | None = None, part: Part = WHOLE, **sizes: int
) -> list[str]:
    return [text for block, _ in read(file, options or ReadOptions(), bad, part, **sizes) for text in block]


def _jsonl(tmp_path: Path, content: bytes) -> CorpusFile:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    return _file(path, "jsonl")


def _table(tmp_path: Path, columns: dict[str, Any], **options: Any) -> CorpusFile:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return _file(path, "parquet")


# Bad records


def test_a_bad_line_is_left_out_and_counted(tmp_path: Path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"one\r\nb\xe4d\r\n\r\nthree\nn\0l\nfive")
    bad = BadRecords("skip")
    assert _texts(_file(path, "text"), bad) == ["one", "three", "five"]
    assert bad.count == 2
    assert list(map(str, bad.shown)) == [
        f"{path} is not UTF-8: byte 0xe4 at offset 6 (line 2)",
        f"{path} is not text: a NUL byte at offset 19 (line 5)",
    ]


@pytest.mark.parametrize("block_bytes", [1, 1 << 22])
def test_a_bad_line_takes_its_paragraph_along(tmp_path: Path, block_bytes: int):
    path = tmp_path / "x.txt"
    path.write_bytes(b"one\n\ntwo\nb\xe4d\nw\xf6rse\nmore\n\n\nthree\n\nn\0l")
    bad = BadRecords("skip")
    assert _texts(_file(path, "text"), bad, ReadOptions("paragraph"), block_bytes=block_bytes) == ["one", "three"]
    assert [record.position for record in bad.shown] == ["offset 10 (line 4)", "offset 34 (line 11)"]
    assert bad.count == 2


def test_the_first_bad_records_are_shown():
    bad = BadRecords("skip")
    for number in range(8):
        bad.add(BadRecord("a", "is bad", f"offset {number}"))
    assert bad.count == 8
    assert [record.position for record in bad.shown] == [f"offset {number}" for number in range(5)]


# JSON lines


def test_a_document_is_the_text_of_each_object(tmp_path: Path):
    file = _jsonl(
        tmp_path, b'\xef\xbb\xbf{"text": "one"}\r\n\n {"id": 2, "text": "two\\nlines"} \n{"text": " "}\n{"text":""}'
    )
    assert _texts(file, BadRecords()) == ["one", "two\nlines"]


@pytest.mark.parametrize(
    ("field", "record"),
    [
        ("content", {"content": "x", "text": "y"}),
        ("a.b", {"a": {"b": "x"}}),
        ("a.b", {"a.b": "x", "a": {"b": "y"}}),
        ("a.b.c", {"a": {"b.c": "x"}}),
        ("a.b.c", {"a": {"b": {"c": "x"}}}),
    ],
)
def test_the_field_may_lie_within_others_and_its_whole_name_wins(tmp_path: Path, field: str, record: dict):
    file = _jsonl(tmp_path, json.dumps(record).encode())
    assert _texts(file, BadRecords(), ReadOptions(text_field=field)) == ["x"]


BAD_LINES = {
    "no JSON": (b'{"text": "a" oops}', 13, "not JSON .Expecting ',' delimiter."),
    "no JSON after letters of many bytes": ('{"text": "日" oops}'.encode(), 15, "not JSON"),
    "cut short": (b'{"text": "a', 9, "not JSON .Unterminated string"),
    "an array": (b'["a"]', 0, "JSON but not an object"),
    "a string": (b'"a"', 0, "JSON but not an object"),
    "another key": (b'{"content": "a", "id": 1}', 0, "without the field 'text' .its keys: content, id."),
    "null": (b'{"text": null}', 0, "has null instead of a string in the field 'text'"),
    "a number": (b'{"text": 1.5}', 0, "has a number instead of a string in the field"),
    "a list": (b'{"text": ["a"]}', 0, "has an array instead of a string in the field"),
    "half of a pair": (b'{"text": "a\\ud83d"}', 0, "an unpaired surrogate"),
    "no UTF-8": (b'{"text": "\xe4"}', 10, "not UTF-8: byte 0xe4"),
    "a control character": (b'{"text": "a\x01"}', 11, "not JSON .Invalid control character"),
    "a huge number": (b'{"text": "a", "n": ' + b"9" * 5_000 + b"}", 0, "too large"),
    "a deep nesting": (b"[" * 100_000, 0, "too large"),
}


@pytest.mark.parametrize(("line", "at", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_line_without_its_text_is_bad_at_its_exact_place(tmp_path: Path, line: bytes, at: int, reason: str):
    content = '{"text": "höher"}\r\n\r\n'.encode() + line + b'\n{"text": "last"}\n'
    file = _jsonl(tmp_path, content)
    with pytest.raises(CorpusError, match=rf"x.jsonl .*{reason}.* at offset {22 + at} \(line 3\)") as caught:
        _texts(file, BadRecords())
    assert "--on-error skip" in caught.value.hint
    bad = BadRecords("skip")
    assert _texts(file, bad) == ["höher", "last"]
    assert bad.count == 1


def test_the_first_bad_line_is_the_one_that_is_named(tmp_path: Path):
    file = _jsonl(tmp_path, b'{"text": 1}\n{"text": "\xff"}\n')
    with pytest.raises(CorpusError, match="has a number"):
        _texts(file, BadRecords())


def test_letters_outside_the_first_plane_are_text(tmp_path: Path):
    assert _texts(_jsonl(tmp_path, json.dumps({"text": "é 🎉"}).encode()), BadRecords()) == ["é 🎉"]


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=3)
RECORDS = st.dictionaries(st.sampled_from(["text", "a", "b"]), JSON, max_size=3) | JSON


@settings(deadline=None)
@given(records=st.lists(RECORDS, max_size=20), part_bytes=st.integers(1, 60), ensure_ascii=st.booleans())
def test_the_parts_of_json_lines_together_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, records: list, part_bytes: int, ensure_ascii: bool
):
    content = "\n".join(json.dumps(record, ensure_ascii=ensure_ascii) for record in records)
    file = _jsonl(tmp_path_factory.mktemp("jsonl"), content.encode("utf-8", "surrogatepass") or b"\n")
    good = [record["text"] for record in records if isinstance(record, dict) and isinstance(record.get("text"), str)]
    bad, texts = BadRecords("skip"), []
    for part in parts_of(file, "line", PartSizes(min_bytes=part_bytes)):
        texts += _texts(file, bad, None, part)
    assert texts == [text for text in good if text.strip()]
    assert bad.count == len(records) - len(good)


# Parquet


KINDS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_document_is_a_value_of_the_column(tmp_path: Path, kind: pa.DataType):
    texts = pa.array(["one", None, "two\nlines", " ", "", "日本"], pa.string()).cast(kind)
    file = _table(tmp_path, {"id": range(6), "text": texts}, store_schema=True)
    assert _texts(file, BadRecords()) == ["one", "two\nlines", "日本"]


def test_a_column_may_lie_within_another_and_its_whole_name_wins(tmp_path: Path):
    nested = pa.array([{"b": {"c": "x"}, "d": 1}, None, {"b": None, "d": 2}])
    assert _texts(_table(tmp_path, {"a": nested}), BadRecords(), ReadOptions(text_field="a.b.c")) == ["x"]
    both = {"a": pa.array([{"b": "y"}]), "a.b": ["x"]}
    assert _texts(_table(tmp_path, both), BadRecords(), ReadOptions(text_field="a.b")) == ["x"]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("words", "no column 'words'; its columns are id .int64., text .string., raw .binary."),
        ("a.b", "no column 'a.b'"),
        ("text.x", "no column 'text.x'"),
        ("id", "column 'id' of .* holds int64 instead of text; the file's columns are id"),
        ("raw", "column 'raw' of .* holds binary"),
    ],
)
def test_a_column_that_is_missing_or_no_text_is_an_error_with_those_there_are(tmp_path: Path, field: str, message: str):
    file = _table(tmp_path, {"id": [1], "text": ["x"], "raw": [b"x"]})
    with pytest.raises(CorpusError, match=message) as caught:
        _texts(file, BadRecords("skip"), ReadOptions(text_field=field))
    assert "corpus.text_field" in caught.value.hint


def test_parts_are_row_groups_and_together_are_the_file(tmp_path: Path):
    random = np.random.default_rng(5)
    texts = [f"{i} " + "x" * int(random.integers(200)) for i in range(1_000)]
    file = _table(tmp_path, {"n": random.random(1_000), "text": texts}, row_group_size=70, compression="none")
    cut = parts_of(file, "line", PartSizes(min_bytes=20_000))
    assert 3 < len(cut) < 15
    assert (cut[0].start, cut[-1].stop) == (0, 15)
    assert [text for part in cut for text in _texts(file, BadRecords(), None, part)] == texts
    assert _texts(file, BadRecords()) == texts
    blocks = [block for part in cut for block in read(file, ReadOptions(), BadRecords(), part, block_bytes=1_000)]
    assert [text for block, _ in blocks for text in block] == texts
    assert max(len(block) for block, _ in blocks) < 70
    assert sum(used for _, used in blocks) == file.size
    assert sum(used for _, used in read(file, ReadOptions(), BadRecords())) == file.size


def test_a_row_group_of_any_size_is_read_a_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []

    class Watched(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            sizes.append(len(data))
            return data

    texts = [f"{i} " + "x" * 1_000 for i in range(12_000)]
    file = _table(tmp_path, {"text": texts}, compression="none", use_dictionary=False)
    monkeypatch.setattr(parquet, "open_stored", lambda file: Watched(file.location))
    assert _texts(file, BadRecords()) == texts
    assert sum(sizes) > 12_000_000
    assert max(sizes) <= 2 << 20


def test_a_table_without_rows_is_no_document(tmp_path: Path):
    file = _table(tmp_path, {"text": pa.array([], pa.string())})
    assert _texts(file, BadRecords()) == []
    assert [text for part in parts_of(file, "line") for text in _texts(file, BadRecords(), None, part)] == []


def test_a_text_that_is_no_utf8_is_bad_and_named_by_its_row(tmp_path: Path):
    texts = pa.array([b"one", b"b\xe4d", b"three"] * 2).view(pa.string())
    file = _table(tmp_path, {"text": texts}, row_group_size=3)
    with pytest.raises(CorpusError, match=r"x\.parquet has text that is not UTF-8: byte 0xe4 at row 1"):
        _texts(file, BadRecords())
    bad = BadRecords("skip")
    assert _texts(file, bad) == ["one", "three"] * 2
    assert [record.position for record in bad.shown] == ["row 1", "row 4"]


@pytest.mark.parametrize("damage", ["cut short", "no Parquet", "data"])
def test_a_damaged_table_is_an_error(tmp_path: Path, damage: str):
    file = _table(tmp_path, {"text": [f"{i}" * 50 for i in range(1_000)]}, compression="zstd", use_dictionary=False)
    content = bytearray(Path(file.location).read_bytes())
    if damage == "data":
        content[100:200] = bytes(100)
    changed = {"cut short": content[:-20], "no Parquet": b"just text\n", "data": content}[damage]
    Path(file.location).write_bytes(changed)
    with pytest.raises(CorpusError, match=r"x.parquet is (not a complete Parquet file|damaged)"):
        _texts(file, BadRecords("skip"))
