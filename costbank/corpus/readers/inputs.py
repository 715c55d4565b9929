"""From what a person names (files, folders, patterns, URLs, standard input) to the files of a corpus.

The name of a file gives its format, and its first bytes its compression. Content decides where a name says nothing.
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

from costbank.corpus.readers.filesystems import FileSystem, file_name, filesystem_of, has_wildcards, is_url
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
from costbank.corpus.readers.streams import MOST_WINDOW_BYTES, open_stored, open_stream
from costbank.corpus.readers.token_bins import LLMC_VERSIONS
from costbank.errors import CorpusError, InputError, InputNotFoundError, UsageError, require
from costbank.files import check_readable, staging_directory, storage_errors
from costbank.plurals import counted
from costbank.signatures import SIGNATURE_BYTES

__all__ = ["STANDARD_INPUT", "find_files", "stdin_spool"]

STANDARD_INPUT = "-"

_SPOOLED_NAME = "standard input"
_COPIED_BYTES = 1 << 20
_HEAD_BYTES = 16
_SNIFFED_BYTES = 1 << 20
_MOST_NAMES_SHOWN = 3


def _ignore(note: str) -> None:
    """Default `note`: discard."""


@contextmanager
def stdin_spool(parent: Path) -> Iterator[Path]:
    """A directory in `parent` that standard input is written to; it is removed on exit.

    Raises:
        StorageError: `parent` cannot be written.
    """
    with storage_errors(parent), staging_directory(parent) as directory:
        yield directory


def find_files(
    given: Sequence[str],
    *,
    wanted: FormatName = "auto",
    spool: Path | None = None,
    note: Callable[[str], None] = _ignore,
    on_error: OnError = "refuse",
) -> tuple[CorpusFile, ...]:
    """The files that people name by files and folders, patterns, URLs, and `-` for standard input.

    Folders are searched recursively for files of known suffixes, and patterns are expanded, both in the order of names;
    a file that has `*` in its name is not a pattern. A file that is reached twice counts once, where it comes first.
    Standard input is written to a file in `spool`. `note` gets a line about files that are left out. A file that is not
    a corpus, or text that is not UTF-8, is an error, or is left out where `on_error` is `skip`.

    Raises:
        InputNotFoundError: a name, a folder or a pattern matches no file.
        CorpusError: a file is not a corpus, or is text in another encoding, and these are refused.
        InputError: a file is empty, cannot be read, is an archive that is not known, or is not of the format `wanted`.
        MissingExtraError: a URL needs a library that is not installed.
        UsageError: `-` is given without a `spool`, or a URL is of an unknown kind.
    """
    search = _Search(wanted, spool, on_error)
    for entry in given:
        search.add(entry)
    for line in search.notes():
        note(line)
    if search.foreign and not search.files:
        raise search.foreign[0]
    return tuple(search.files.values())


class _Search:
    def __init__(self, wanted: FormatName, spool: Path | None, on_error: OnError) -> None:
        self._format: FormatName = wanted
        self._spool = spool
        self._on_error: OnError = on_error
        self.foreign: list[CorpusError] = []
        self._known = known_suffixes(wanted)
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
            raise UsageError("a corpus file has an empty name", "give the names of files, or . for this folder")
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
            yield f"left out files of other kinds: {_counted(self._unknown)}; those named by themselves are read"
        if self._empty:
            names = ", ".join(self._empty[:_MOST_NAMES_SHOWN])
            more = len(self._empty) - _MOST_NAMES_SHOWN
            yield f"left out empty files: {names}" + (f" and {more} more" if more > 0 else "")
        if self.foreign:
            yield "left out files that cannot be read:\n  " + "\n  ".join(error.message for error in self.foreign)
        if self._repeated:
            yield f"named more than once and read once: {counted(self._repeated, 'file')}"

    def _add_named(self, filesystem: FileSystem, entry: str) -> None:
        location = entry
        if not filesystem.exists(entry) and not is_url(entry) and Path(f"{entry}.idx").exists():
            location = f"{entry}.bin"  # Megatron's tools name the two files by what they share
        elif (partner := partner_of(entry)) is not None and self._format in ("auto", *TOKEN_FORMATS):
            location = partner
        filesystem.check(location)
        self._keep(filesystem, location)

    def _add_some(self, filesystem: FileSystem, entry: str, locations: list[str], pattern: str = "") -> None:
        """Take the files of a folder or a pattern that have a known suffix, or the suffix that the pattern names."""
        taken, unknown, empty = 0, Counter(), []
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
                taken += 1
        if not taken:
            others = f"; there are empty files: {len(empty)}" if empty else ""
            others += f"; there are files of other kinds: {_counted(unknown)}" if unknown else ""
            raise InputNotFoundError(
                f"no file matches {entry}{others}",
                f"looked for {', '.join(sorted(self._known))}, also with .gz or .zst; other files are named by "
                "themselves, or by a pattern with their suffix",
            )
        self._unknown += unknown
        self._empty += empty

    def _is_json_lines(self, filesystem: FileSystem, location: str) -> bool:
        """Whether a `.json` in a folder is a corpus: at least two lines, and an object in each."""
        file = self._identified(filesystem, location)
        return file is not None and _json_objects(file) >= 2

    def _add_stdin(self) -> None:
        if self._spool is None:
            raise UsageError("standard input is not read here", "write it to a file and name that")
        location = str(self._spool / "stdin")
        if location in self.files:
            self._repeated += 1
            return
        with storage_errors(self._spool), Path(location).open("wb") as spooled:
            shutil.copyfileobj(sys.stdin.buffer, spooled, _COPIED_BYTES)
        if Path(location).stat().st_size == 0:
            raise InputError("standard input is empty", "pipe text into it")
        if (file := self._identified(filesystem_of(location), location, _SPOOLED_NAME)) is not None:
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
    """Whether a pattern names the suffix of a file that it matches, as `*.log` does and `*` does not."""
    last = file_name(pattern)
    suffix = PurePosixPath(location).suffix
    return has_wildcards(last) and (last.endswith(suffix) if suffix else re.fullmatch(r"\*+", last) is None)


def _counted(suffixes: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common())


def _identify(filesystem: FileSystem, location: str, wanted: FormatName, title: str = "") -> CorpusFile:
    """A file with its format: the given one, or, with `auto`, the one that its name says.

    With `auto`, the beginning of the file is checked against that. A file with a title has no name, so its beginning
    decides between text, JSON lines and Parquet.

    Raises:
        CorpusError: it begins as another kind of file does, or as text in another encoding.
        InputError: it is an unsupported archive, token ids that cannot be mapped, or it cannot be opened.
        InputNotFoundError: the index that token ids need is not next to them.
    """
    size = filesystem.size(location) or 0
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
        kind = _format_of_content(CorpusFile(location, kind, compression, size, title))
    if kind == "parquet" and compression != "none":
        raise InputError(
            f"{location} is a compressed Parquet file", "decompress it first; Parquet is compact by itself"
        )
    file = CorpusFile(location, kind, compression, size, title)
    if wanted == "auto":
        refuse_foreign(file, _decompressed(head, compression))
    return file


def _decompressed(head: bytes, compression: Compression) -> bytes:
    """The content that the beginning of a file holds; empty for a damaged file, which is reported when it is read."""
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


def _format_of_content(file: CorpusFile) -> FileFormat:
    """The format of a file without a name, by its beginning."""
    if file.compression == "none":
        with file.path.open("rb") as handle:
            if handle.read(4) == b"PAR1":
                return "parquet"
    return "jsonl" if _json_objects(file) else "text"


def _check_json_lines(file: CorpusFile) -> None:
    """Make sure that a `.json` holds an object in each line.

    Raises:
        InputError: it does not, as most `.json` files.
    """
    if _json_objects(file):
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


def _json_objects(file: CorpusFile) -> int:
    """How many of the first two non-blank lines hold a JSON object; a line too long to be read here counts."""
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
