"""Files with a footer that describes them: their bytes, and the reading of truncated or changed files."""

import json
from pathlib import Path

import numpy as np
import pytest

from costbank.corpus.entries import read_entry, write_entry
from costbank.footers import Footer, read_footer, write_footer
from costbank.sources.cooccurrence.runs import RunWriter, read_run

MAGIC = b"example\1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"content")
        write_footer(file, {"key": [1, 2]}, MAGIC)
    return path


def test_a_footer_is_json_its_length_and_the_magic_after_the_content(path: Path):
    assert path.read_bytes() == b'content{"key": [1, 2]}' + b"\x0f\0\0\0\0\0\0\0" + MAGIC
    assert read_footer(path, MAGIC) == Footer({"key": [1, 2]}, len(b"content"))


def test_a_footer_longer_than_allowed_is_not_read(path: Path):
    assert read_footer(path, MAGIC, 15) is not None
    assert read_footer(path, MAGIC, 14) is None


def test_a_file_of_another_kind_has_no_footer(path: Path):
    assert read_footer(path, b"other\0\0\1") is None


def test_a_file_that_is_cut_short_anywhere_has_no_footer(path: Path):
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert read_footer(path, MAGIC) is None


def test_a_length_of_any_size_is_refused_or_shows_other_content(path: Path):
    data = path.read_bytes()
    for length in (0, 14, 16, 22, 23, 1 << 40, (1 << 64) - 1):
        path.write_bytes(data[:-16] + length.to_bytes(8, "little") + MAGIC)
        try:
            footer = read_footer(path, MAGIC)
        except ValueError:
            continue
        assert footer is None


def test_entries_and_runs_keep_their_bytes(tmp_path: Path):
    """Builds read the caches of earlier builds, so the layout must not change."""
    blocks = [(np.array([1, 2, 3], np.uint16), np.array([1, 3]))]
    write_entry(tmp_path / "entry", tmp_path / "staging", blocks, np.dtype("<u2"), lambda: {"skipped": 0})
    facts = {"ids_dtype": "<u2", "ids_offset": 0, "tokens": 3, "read": {"skipped": 0}, "documents": 2, "ends_offset": 8}
    footer = json.dumps(facts).encode()
    assert (tmp_path / "entry").read_bytes() == (
        np.array([1, 2, 3, 0], "<u2").tobytes()
        + np.array([1, 3], "<i8").tobytes()
        + footer
        + len(footer).to_bytes(8, "little")
        + b"cbids\0\0\1"
    )
    with RunWriter(tmp_path / "run", tmp_path / "staging") as writer:
        writer.append(np.array([5, 9], np.uint64))
        writer.finish()
    footer = b'[{"offset": 0, "entries": 2, "samples": [5, 9]}]'
    assert (tmp_path / "run").read_bytes() == (
        np.array([5, 9], "<u8").tobytes() + footer + len(footer).to_bytes(8, "little") + b"cbrun\0\0\1"
    )


@pytest.mark.parametrize("content", [None, 1, [], {}, [1], {"tokens": "x"}, "text"])
def test_a_footer_that_says_nothing_useful_is_not_an_entry_and_not_a_run(tmp_path: Path, content: object):
    for magic, read in ((b"cbids\0\0\1", read_entry), (b"cbrun\0\0\1", read_run)):
        path = tmp_path / magic[:5].decode()
        with path.open("wb") as file:
            file.write(b"content")
            write_footer(file, content, magic)
        assert read(path) is None
