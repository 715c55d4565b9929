"""Find the files of a corpus from files, folders, patterns, URLs and standard input.

The name of a file determines its format, and its first bytes determine its compression. Standard input has no name, so
its content determines the format.
"""

import json
import re
import shlex
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from costbank.corpus.readers.filesystems import FileSystem, file_name, filesystem_of, has_wildcards
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
    partner_of,
    suffix_of,
)
from costbank.corpus.readers.reading import OnError
from costbank.corpus.readers.streams import MAX_WINDOW_BYTES, open_stored, open_stream
from costbank.corpus.readers.token_bins import LLMC_VERSIONS
from costbank.errors import CorpusError, InputError, InputNotFoundError, UsageError, require
from costbank.files import check_readable, staging_directory, storage_errors
from costbank.plurals import counted
from costbank.signatures import SIGNATURE_BYTES
from costbank.urls import is_url

__all__ = ["STANDARD_INPUT", "find_files", "stdin_spool"]

STANDARD_INPUT = "-"

_STDIN_TITLE = "standard input"
_COPY_BYTES = 1 << 20
_HEAD_BYTES = 16
_SNIFF_BYTES = 1 << 20
_MAX_NAMES_SHOWN = 3


def _ignore(note: str) -> None:
    """Default `note`: discard."""


@contextmanager
def stdin_spool(parent: Path) -> Iterator[Path]:
    """Make a directory in `parent` for a copy of standard input; it is deleted on exit.

    Raises:
        StorageError: `parent` is not writable.
    """
    with storage_errors(parent), staging_directory(parent) as directory:
        yield directory


def find_files(
    names: Sequence[str],
    *,
    format_name: FormatName = "auto",
    spool: Path | None = None,
    note: Callable[[str], None] = _ignore,
    on_error: OnError = "refuse",
) -> tuple[CorpusFile, ...]:
    """Find the files of a corpus and detect their formats.

    Args:
        names: files, folders, patterns, URLs, and `-` for standard input. Folders are searched recursively for files
            with known suffixes. The files of a folder or a pattern are sorted by name. The name of an existing file is
            not a pattern, even if it contains `*`. A file that is named twice is read once, at its first position.
        format_name: the format of all files; `auto` detects the format of each file.
        spool: a directory for a copy of standard input.
        note: called with a line of text about files that are skipped.
        on_error: what to do with a file that is not a corpus file or is text in an encoding other than UTF-8.

    Raises:
        InputNotFoundError: a file does not exist, or a folder or pattern matches no file.
        CorpusError: a file is not a corpus file or is text in an encoding other than UTF-8, and `on_error` is `refuse`,
            or no other file is left.
        InputError: a file is empty, cannot be read, is an unsupported archive, or does not have the format.
        MissingExtraError: a URL needs a library that is not installed.
        UsageError: a name is empty, `names` has `-` but `spool` is None, or the scheme of a URL is unknown.
    """
    search = _Search(format_name, spool, on_error)
    for name in names:
        search.add(name)
    for line in search.notes():
        note(line)
    if search.foreign and not search.files:
        raise search.foreign[0]
    return tuple(search.files.values())


class _Search:
    """The files found so far, and the ones that were skipped.

    Attributes:
        files: the files, by a name that is the same for all paths to one file.
        foreign: errors about skipped files.
    """

    def __init__(self, format_name: FormatName, spool: Path | None, on_error: OnError) -> None:
        self._format: FormatName = format_name
        self._spool = spool
        self._on_error: OnError = on_error
        self.foreign: list[CorpusError] = []
        self._known = known_suffixes(format_name)
        self.files: dict[str, CorpusFile] = {}
        self._unknown: Counter[str] = Counter()
        self._empty: list[str] = []
        self._repeated = 0

    def add(self, entry: str) -> None:
        if entry == STANDARD_INPUT:
            self._add_stdin()
            return
        entry = entry.removeprefix("file://")
        if not entry:
            raise UsageError("the name of a corpus file is empty", "name a file, or . for the current folder")
        filesystem = filesystem_of(entry)
        if filesystem.is_folder(entry):
            self._add_some(filesystem, entry, filesystem.files_within(entry))
        elif not has_wildcards(entry) or filesystem.exists(entry):
            self._add_named(filesystem, entry)
        else:
            self._add_pattern(filesystem, entry)

    def _add_pattern(self, filesystem: FileSystem, pattern: str) -> None:
        matches = filesystem.matches(pattern)
        folders = dict.fromkeys(match for match in matches if filesystem.is_folder(match))
        if len(folders) < len(matches):
            self._add_some(filesystem, pattern, [match for match in matches if match not in folders], pattern)
        else:
            self._add_some(
                filesystem, pattern, [file for folder in folders for file in filesystem.files_within(folder)]
            )

    def notes(self) -> Iterator[str]:
        if self._unknown:
            yield f"skipped files of other kinds: {_counted(self._unknown)}; to read such a file, name it"
        if self._empty:
            names = ", ".join(self._empty[:_MAX_NAMES_SHOWN])
            more = len(self._empty) - _MAX_NAMES_SHOWN
            yield f"skipped empty files: {names}" + (f" and {more} more" if more > 0 else "")
        if self.foreign:
            yield "skipped files that cannot be read:\n  " + "\n  ".join(error.message for error in self.foreign)
        if self._repeated:
            yield f"named several times, but read once: {counted(self._repeated, 'file')}"

    def _add_named(self, filesystem: FileSystem, entry: str) -> None:
        location = entry
        if not filesystem.exists(entry) and not is_url(entry) and Path(f"{entry}.idx").exists():
            location = f"{entry}.bin"  # Megatron's tools take the common prefix of the two files
        elif (partner := partner_of(entry)) is not None and self._format in ("auto", *TOKEN_FORMATS):
            location = partner
        filesystem.check(location)
        self._keep(filesystem, location)

    def _add_some(self, filesystem: FileSystem, entry: str, locations: list[str], pattern: str = "") -> None:
        """Add the files of a folder or a pattern that have a known suffix, or the suffix that the pattern names."""
        added, unknown, empty = 0, Counter(), []
        for location in locations:
            suffix, is_named = suffix_of(file_name(location)), _named_by(pattern, location)
            if not is_named and partner_of(location) is not None:
                continue
            if not is_named and suffix not in self._known:
                unknown[suffix] += 1
            elif filesystem.size(location) == 0:
                empty.append(location)
            elif not is_named and suffix == ".json" and not self._is_json_lines(filesystem, location):
                unknown[suffix] += 1
            else:
                self._add_named(filesystem, location)
                added += 1
        if not added:
            others = f"; empty files: {len(empty)}" if empty else ""
            others += f"; files of other kinds: {_counted(unknown)}" if unknown else ""
            raise InputNotFoundError(
                f"no file matches {entry}{others}",
                f"files with the suffixes {', '.join(sorted(self._known))} are read, also with .gz or .zst; to read "
                "another file, name it, or use a pattern with its suffix",
            )
        self._unknown += unknown
        self._empty += empty

    def _is_json_lines(self, filesystem: FileSystem, location: str) -> bool:
        """Whether a `.json` file of a folder is a corpus: its first two lines each hold an object."""
        file = self._identified(filesystem, location)
        return file is not None and _json_objects(file) >= 2

    def _add_stdin(self) -> None:
        if self._spool is None:
            raise UsageError("standard input cannot be read here", "write the text to a file and name the file")
        location = str(self._spool / "stdin")
        if location in self.files:
            self._repeated += 1
            return
        with storage_errors(self._spool), Path(location).open("wb") as spooled:
            shutil.copyfileobj(sys.stdin.buffer, spooled, _COPY_BYTES)
        if Path(location).stat().st_size == 0:
            raise InputError("standard input is empty", "pipe text into the command")
        if (file := self._identified(filesystem_of(location), location, _STDIN_TITLE)) is not None:
            self.files[location] = file

    def _keep(self, filesystem: FileSystem, location: str) -> None:
        identity = filesystem.identity(location)
        if identity in self.files:
            self._repeated += 1
            return
        if (file := self._identified(filesystem, location)) is None:
            return
        if suffix_of(file.name) == ".json" and self._format == "auto":
            _check_json_lines(file)
        self.files[identity] = file

    def _identified(self, filesystem: FileSystem, location: str, title: str = "") -> CorpusFile | None:
        try:
            return _identify(filesystem, location, self._format, title)
        except CorpusError as error:
            if self._on_error == "refuse":
                raise
            self.foreign.append(error)
            return None


def _named_by(pattern: str, location: str) -> bool:
    """Whether a pattern contains the suffix of a file that it matches: `*.log` does, and `*` does not."""
    last = file_name(pattern)
    suffix = PurePosixPath(location).suffix
    return has_wildcards(last) and (last.endswith(suffix) if suffix else re.fullmatch(r"\*+", last) is None)


def _counted(suffixes: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common())


def _identify(filesystem: FileSystem, location: str, format_name: FormatName, title: str = "") -> CorpusFile:
    """Determine the format and compression of a file.

    With `auto`, the name determines the format, and the first bytes are checked against it. A file with a title has no
    name, so its first bytes determine whether it is text, JSON lines or Parquet.

    Raises:
        CorpusError: the first bytes are those of another kind of file or of text in another encoding.
        InputError: it is an unsupported archive or holds token ids that cannot be mapped, or it cannot be opened.
        InputNotFoundError: it holds token ids, and its index does not exist.
    """
    size = filesystem.size(location) or 0
    with open_stored(CorpusFile(location, "text", "none", size)) as handle:
        head = handle.read(SIGNATURE_BYTES)
    refuse_foreign_archive(title or location, head)
    kind = _kind_by_name(location, head) if format_name == "auto" else format_name
    if kind in TOKEN_FORMATS:
        if format_name == "auto" and kind == "nanogpt":
            refuse_foreign_ids(location, head)
        _check_token_file(location, kind, head)
        return CorpusFile(location, kind, "none", size)
    compression = compression_of(head)
    if title and format_name == "auto":
        kind = _format_of_content(CorpusFile(location, kind, compression, size, title))
    if kind == "parquet" and compression != "none":
        raise InputError(
            f"{location} is a compressed Parquet file", "decompress it; Parquet files are compressed internally"
        )
    file = CorpusFile(location, kind, compression, size, title)
    if format_name == "auto":
        refuse_foreign(file, _decompressed(head, compression))
    return file


def _decompressed(head: bytes, compression: Compression) -> bytes:
    """The decompressed first bytes of a file; empty if they are damaged, which is reported when the file is read."""
    if compression == "none":
        return head
    with suppress(zlib.error):
        if compression == "gz":
            return zlib.decompressobj(wbits=31).decompress(head, SIGNATURE_BYTES)
        zstandard = require("zstandard", "corpus")
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
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
        raise InputError(f"{location} holds token ids, which must be on a local disk", "copy it to this machine")
    name = file_name(location).lower()
    if suffix_of(name) != PurePosixPath(name).suffix and compression_of(head) != "none":
        raise InputError(f"{location} holds compressed token ids, which cannot be memory-mapped", "decompress it")
    if index := index_of(CorpusFile(location, kind, "none", 0)):
        check_readable(index, f"index of {location},")


def _format_of_content(file: CorpusFile) -> FileFormat:
    """The format of a file without a name, by its first bytes."""
    if file.compression == "none":
        with file.path.open("rb") as handle:
            if handle.read(4) == b"PAR1":
                return "parquet"
    return "jsonl" if _json_objects(file) else "text"


def _check_json_lines(file: CorpusFile) -> None:
    """Check that a `.json` file has one object per line.

    Raises:
        InputError: it does not have one object per line.
    """
    if _json_objects(file):
        return
    with open_stream(file) as stream:
        is_array = stream.read(_HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    source = file.name if file.is_remote else file.location
    content = "holds a JSON array" if is_array else "does not hold JSON lines"
    raise InputError(
        f"{file.location} {content}; a corpus needs one object per line",
        f"convert it: jq -c '{'.[]' if is_array else '.'}' {shlex.quote(source)} > "
        f"{shlex.quote(source.removesuffix('.json') + '.jsonl')}",
    )


def _json_objects(file: CorpusFile) -> int:
    """How many of the first two lines that are not blank hold a JSON object; a very long line is not parsed."""
    with open_stream(file) as stream:
        head = stream.read(_SNIFF_BYTES)
    lines = [line for line in head.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True) if not line.isspace()]
    return sum(_is_object(line, len(head)) for line in lines[:2])


def _is_object(line: bytes, sniffed: int) -> bool:
    if sniffed == _SNIFF_BYTES and not line.endswith(b"\n"):
        return line.lstrip().startswith(b'{"')
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
