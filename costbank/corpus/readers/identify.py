"""What a file holds: its format by its name, its compression by its first bytes, its content where names are vague."""

import json
import shlex
import zlib
from contextlib import suppress
from pathlib import Path, PurePosixPath

from costbank.corpus.readers.foreign import refuse_foreign, refuse_foreign_archive, refuse_foreign_ids
from costbank.corpus.readers.formats import (
    TOKEN_FORMATS,
    Compression,
    CorpusFile,
    FileFormat,
    FormatName,
    compression_of,
    index_of,
    known_suffixes,
    suffix_of,
)
from costbank.corpus.readers.places import Place, file_name
from costbank.corpus.readers.remote import is_url
from costbank.corpus.readers.streams import MOST_WINDOW_BYTES, open_stored, open_stream
from costbank.corpus.readers.token_layouts import LLMC_VERSIONS
from costbank.errors import InputError, require
from costbank.files import check_readable
from costbank.signatures import SIGNATURE_BYTES

__all__ = ["check_json_lines", "format_of_content", "identify", "json_objects"]

_HEAD_BYTES = 16
_SNIFFED_BYTES = 1 << 20


def identify(place: Place, location: str, wanted: FormatName, title: str = "") -> CorpusFile:
    """A file as one of the format that is wanted, or, with `auto`, as one of the format that its name says.

    With `auto`, its beginning is held against that; a format that is given is believed. A file with a title has no
    name that says anything, so its beginning tells between text, JSON lines and Parquet.

    Raises:
        CorpusError: its beginning is that of another kind of file, or of text in another encoding.
        InputError: it is an archive that is not read, token ids that cannot be mapped, or it cannot be opened.
        InputNotFoundError: the index that token ids need does not lie beside them.
    """
    size = place.size(location) or 0
    with open_stored(CorpusFile(location, "text", "none", size)) as handle:
        head = handle.read(SIGNATURE_BYTES)
    refuse_foreign_archive(title or location, head)
    kind = _kind_by_name(location, head) if wanted == "auto" else wanted
    if kind in TOKEN_FORMATS:
        if wanted == "auto" and kind == "nanogpt":
            refuse_foreign_ids(location, head)
        _check_token_file(location, kind, head)
        return CorpusFile(location, kind, "none", size)
    compression = compression_of(head)
    if title and wanted == "auto":
        kind = format_of_content(CorpusFile(location, kind, compression, size, title))
    if kind == "parquet" and compression != "none":
        raise InputError(
            f"{location} is a compressed Parquet file", "decompress it first; Parquet is compact by itself"
        )
    file = CorpusFile(location, kind, compression, size, title)
    if wanted == "auto":
        refuse_foreign(file, _decompressed(head, compression))
    return file


def _decompressed(head: bytes, compression: Compression) -> bytes:
    """So much of the content as the beginning of a file gives; nothing where it is damaged, which reading tells."""
    if compression == "none":
        return head
    with suppress(zlib.error):
        if compression == "gz":
            return zlib.decompressobj(wbits=31).decompress(head, SIGNATURE_BYTES)
        zstandard = require("zstandard", "corpus")
        decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES)
        with suppress(zstandard.ZstdError), decompressor.stream_reader(head) as stream:
            return stream.read(SIGNATURE_BYTES)
    return b""


def _kind_by_name(location: str, head: bytes) -> FileFormat:
    suffix = suffix_of(file_name(location))
    if suffix != ".bin":
        return known_suffixes("auto").get(suffix, "text")
    if not is_url(location) and Path(location).with_suffix(".idx").exists():
        return "megatron"
    return "llmc" if int.from_bytes(head[:4], "little") in LLMC_VERSIONS else "nanogpt"


def _check_token_file(location: str, kind: FileFormat, head: bytes) -> None:
    if is_url(location):
        raise InputError(f"{location} holds token ids, which are mapped from disk", "copy it to this machine first")
    name = file_name(location).lower()
    if suffix_of(name) != PurePosixPath(name).suffix and compression_of(head) != "none":
        raise InputError(f"{location} holds compressed token ids, which cannot be mapped", "decompress it first")
    if index := index_of(CorpusFile(location, kind, "none", 0)):
        check_readable(index, f"index of {location},")


def format_of_content(file: CorpusFile) -> FileFormat:
    """What a file without a name holds, told by its beginning."""
    if file.compression == "none":
        with file.path.open("rb") as handle:
            if handle.read(4) == b"PAR1":
                return "parquet"
    return "jsonl" if json_objects(file) else "text"


def check_json_lines(file: CorpusFile) -> None:
    """Make sure that a `.json` holds an object a line.

    Raises:
        InputError: it holds something else, as most `.json` files do.
    """
    if json_objects(file):
        return
    with open_stream(file) as stream:
        is_array = stream.read(_HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    source = file.name if file.is_remote else file.location
    kind = "a JSON array" if is_array else "JSON over several lines, or none"
    raise InputError(
        f"{file.location} holds {kind}, and not one object a line",
        f"convert it: jq -c '{'.[]' if is_array else '.'}' {shlex.quote(source)} > "
        f"{shlex.quote(source.removesuffix('.json') + '.jsonl')}",
    )


def json_objects(file: CorpusFile) -> int:
    """How many of the first two lines that are not blank hold a JSON object; one too long to be read here counts."""
    with open_stream(file) as stream:
        head = stream.read(_SNIFFED_BYTES)
    lines = [line for line in head.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True) if not line.isspace()]
    return sum(_is_object(line, len(head)) for line in lines[:2])


def _is_object(line: bytes, sniffed: int) -> bool:
    if sniffed == _SNIFFED_BYTES and not line.endswith(b"\n"):
        return line.lstrip().startswith(b'{"')
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
