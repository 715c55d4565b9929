import gzip
import io
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
import zstandard

from costbank.corpus.readers import BadRecords, CorpusFile, ReadOptions, read_documents
from costbank.corpus.readers.formats import Compression, FileFormat
from costbank.corpus.readers.streams import open_stream
from costbank.errors import CorpusError, InputError, InputNotFoundError, MissingExtraError

TEXT = "".join(f"line {i} of the text, 日本\n" for i in range(20_000)).encode()


def _zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKED = {"gz": gzip.compress, "zst": _zst}


def _stored(tmp_path: Path, content: bytes, compression: Compression) -> CorpusFile:
    path = tmp_path / "archive"
    path.write_bytes(content)
    return CorpusFile(str(path), "text", compression, len(content))


def _read(file: CorpusFile) -> bytes:
    with open_stream(file) as stream:
        data = b"".join(iter(lambda: stream.read(100_000), b""))
        assert stream.consumed == file.size
    return data


@pytest.mark.parametrize("compression", PACKED)
def test_archives_of_one_member_or_several_are_one_text(tmp_path: Path, compression: Compression):
    pack = PACKED[compression]
    assert _read(_stored(tmp_path, pack(TEXT), compression)) == TEXT
    parts = [TEXT[:7], b"", TEXT[7:300_000], TEXT[300_000:]]
    assert _read(_stored(tmp_path, b"".join(map(pack, parts)), compression)) == TEXT


def test_a_plain_file_is_read_as_it_is(tmp_path: Path):
    assert _read(_stored(tmp_path, TEXT, "none")) == TEXT


@pytest.mark.parametrize("compression", PACKED)
def test_a_file_that_compresses_a_thousandfold_is_read_completely(tmp_path: Path, compression: Compression):
    zeros = bytes(50_000_000)
    assert _read(_stored(tmp_path, PACKED[compression](zeros), compression)) == zeros


@pytest.mark.parametrize("compression", PACKED)
def test_progress_counts_stored_bytes(tmp_path: Path, compression: Compression):
    file = _stored(tmp_path, PACKED[compression](TEXT), compression)
    blocks = list(read_documents(file, ReadOptions(), BadRecords()))
    assert sum(used for _, used in blocks) == file.size
    assert [line for texts, _ in blocks for line in texts] == TEXT.decode().splitlines()


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize("members", [1, 2])
def test_an_archive_cut_short_anywhere_is_an_error(tmp_path: Path, compression: Compression, members: int):
    text = TEXT[:2_000]
    first, whole = PACKED[compression](text), PACKED[compression](text) * members
    for length in range(len(first) * (members - 1) + 1, len(whole)):
        with pytest.raises(CorpusError, match=rf"archive is truncated: it ends at offset {length} .* bytes of text"):
            _read(_stored(tmp_path, whole[:length], compression))


def test_a_frame_flushed_but_not_ended_is_cut_short(tmp_path: Path):
    writer = zstandard.ZstdCompressor().compressobj()
    flushed = writer.compress(TEXT) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(CorpusError, match=f"truncated.* after {len(TEXT)} bytes of text"):
        _read(_stored(tmp_path, flushed, "zst"))


def test_a_member_without_its_trailer_is_cut_short(tmp_path: Path):
    with pytest.raises(CorpusError, match=f"truncated.* after {len(TEXT)} bytes of text"):
        _read(_stored(tmp_path, gzip.compress(TEXT)[:-8], "gz"))


@pytest.mark.parametrize("compression", PACKED)
def test_a_damaged_archive_is_an_error(tmp_path: Path, compression: Compression):
    packed = bytearray(PACKED[compression](TEXT))
    packed[-6] ^= 0xFF  # within the checksum of either format
    packed[-2] ^= 0xFF
    with pytest.raises(CorpusError, match=r"archive is damaged: .* from offset \d+ .* bytes of text"):
        _read(_stored(tmp_path, bytes(packed), compression))


@pytest.mark.parametrize("compression", PACKED)
def test_garbage_after_an_archive_is_an_error(tmp_path: Path, compression: Compression):
    packed = PACKED[compression](TEXT)
    with pytest.raises(CorpusError, match=rf"damaged: .* from offset {len(packed)} .* after {len(TEXT)} bytes"):
        _read(_stored(tmp_path, packed + b"garbage that is none", compression))


@pytest.mark.parametrize("zeros", [1, 511, 100_000])
def test_zeros_after_a_gzip_member_are_padding(tmp_path: Path, zeros: int):
    packed = gzip.compress(TEXT)
    assert _read(_stored(tmp_path, packed + bytes(zeros), "gz")) == TEXT
    assert _read(_stored(tmp_path, packed + bytes(zeros) + packed, "gz")) == TEXT * 2


def test_skippable_frames_and_long_windows_are_read(tmp_path: Path):
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    window_of_2_gib = b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3])
    long = window_of_2_gib + (5 << 3 | 1).to_bytes(3, "little") + b"hello"
    assert _read(_stored(tmp_path, skippable + _zst(b"a ") + long, "zst")) == b"a hello"


def test_a_bad_line_of_an_archive_is_placed_in_its_text(tmp_path: Path):
    file = _stored(tmp_path, gzip.compress(b"good\nb\xff\n"), "gz")
    with pytest.raises(CorpusError, match=r"offset 6 of its decompressed text \(line 2\)"):
        list(read_documents(file, ReadOptions(), BadRecords()))


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.rm("/", recursive=True)


@pytest.mark.parametrize("compression", PACKED)
def test_a_file_behind_a_url_is_read_alike(memory: fsspec.AbstractFileSystem, compression: Compression):
    packed = PACKED[compression](TEXT)
    memory.pipe("/corpus/text", packed)
    assert _read(CorpusFile("memory://corpus/text", "text", compression, len(packed))) == TEXT


def test_errors_of_other_machines_become_our_errors(memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputNotFoundError, match="memory://corpus/gone does not exist"):
        _read(CorpusFile("memory://corpus/gone", "text", "none", 1))

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise TimeoutError("no answer")

    monkeypatch.setattr(type(memory), "open", lambda *_: Broken())
    with pytest.raises(InputError, match="memory://corpus/text cannot be read: TimeoutError: no answer"):
        _read(CorpusFile("memory://corpus/text", "text", "none", 1))


def test_reading_plain_text_loads_no_library_of_the_extra(tmp_path: Path):
    (tmp_path / "x.txt").write_text("text\n")
    code = f"""
import sys
from costbank.corpus.readers import BadRecords, ReadOptions, find_files, parts_of, read_documents
(file,) = find_files([{str(tmp_path)!r}])
(part,) = parts_of(file, "line")
print(list(read_documents(file, ReadOptions(), BadRecords(), part)))
print([name for name in ("fsspec", "pyarrow", "zstandard") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.splitlines() == ["[(['text'], 5)]", "[]"]


@pytest.mark.parametrize(
    ("module", "kind", "compression"), [("zstandard", "text", "zst"), ("pyarrow", "parquet", "none")]
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, kind: FileFormat, compression: Compression
):
    (tmp_path / "x").write_bytes(_zst(b"text"))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=module) as caught:
        list(read_documents(CorpusFile(str(tmp_path / "x"), kind, compression, 9), ReadOptions(), BadRecords()))
    assert "costbank[corpus]" in caught.value.hint
