"""From what a person names (files, folders, patterns, URLs, standard input) to the files of a corpus."""

import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from costbank.corpus.readers.formats import TOKEN_FORMATS, CorpusFile, FormatName, known_suffixes, partner_of, suffix_of
from costbank.corpus.readers.identify import check_json_lines, identify, json_objects
from costbank.corpus.readers.places import Place, file_name, has_wildcards, place_of
from costbank.corpus.readers.records import OnError
from costbank.corpus.readers.remote import is_url
from costbank.errors import CorpusError, InputError, InputNotFoundError, UsageError
from costbank.files import staging_directory, storage_errors
from costbank.plurals import counted

__all__ = ["STANDARD_INPUT", "find_files", "stdin_spool"]

STANDARD_INPUT = "-"

_SPOOLED_NAME = "standard input"
_COPIED_BYTES = 1 << 20
_MOST_NAMES_SHOWN = 3


def _ignore(note: str) -> None:
    """Default `note`: discard."""


@contextmanager
def stdin_spool(parent: Path) -> Iterator[Path]:
    """A directory in `parent` for standard input to be written into; it is removed in the end.

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
    """The files that are meant by names of files and folders, patterns, URLs, and `-` for standard input.

    Folders are searched to their depths for files of known suffixes, patterns are expanded, both in the order of
    names; a file that goes by a name with `*` in it is that file. A file that is reached twice is taken at its first
    place. Standard input is written to a file in `spool`. What is left out is told to `note`, a line each.
    A file that is not a corpus, or text that is not UTF-8, is an error, or is left out where `on_error` is `skip`.

    Raises:
        InputNotFoundError: a name, a folder or a pattern leads to no file.
        CorpusError: a file holds something else, or text in another encoding, and these are refused.
        InputError: a file is empty, cannot be read, is an archive that is not known, or is not of the format `wanted`.
        MissingExtraError: a URL needs a library that is not installed.
        UsageError: `-` is given without a `spool`, or a URL is of an unknown kind.
    """
    search = _Search(wanted, spool, on_error)
    for entry in given:
        search.add(entry)
    for line in search.notes():
        note(line)
    if search.foreign and not search.found:
        raise search.foreign[0]
    return tuple(search.found.values())


class _Search:
    def __init__(self, wanted: FormatName, spool: Path | None, on_error: OnError) -> None:
        self._format: FormatName = wanted
        self._spool = spool
        self._on_error: OnError = on_error
        self.foreign: list[CorpusError] = []
        self._known = known_suffixes(wanted)
        self.found: dict[str, CorpusFile] = {}
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
        place = place_of(entry)
        if place.is_folder(entry):
            self._add_some(place, entry, place.files_within(entry))
        elif not has_wildcards(entry) or place.exists(entry):
            self._add_named(place, entry)
        else:
            self._add_pattern(place, entry)

    def _add_pattern(self, place: Place, pattern: str) -> None:
        matches = place.matches(pattern)
        folders = dict.fromkeys(match for match in matches if place.is_folder(match))
        if len(folders) < len(matches):
            self._add_some(place, pattern, [match for match in matches if match not in folders], pattern)
        else:
            self._add_some(place, pattern, [file for folder in folders for file in place.files_within(folder)])

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

    def _add_named(self, place: Place, entry: str) -> None:
        location = entry
        if not place.exists(entry) and not is_url(entry) and Path(f"{entry}.idx").exists():
            location = f"{entry}.bin"  # Megatron's tools name the two files by what they share
        elif (partner := partner_of(entry)) is not None and self._format in ("auto", *TOKEN_FORMATS):
            location = partner
        place.check(location)
        self._keep(place, location)

    def _add_some(self, place: Place, entry: str, locations: list[str], pattern: str = "") -> None:
        """Take files that were found in a folder or by a pattern: those of known kinds, or of the pattern's kind."""
        taken, unknown, empty = 0, Counter(), []
        for location in locations:
            suffix, asked_for = suffix_of(file_name(location)), _asked_for(pattern, location)
            if not asked_for and partner_of(location) is not None:
                continue
            if not asked_for and suffix not in self._known:
                unknown[suffix] += 1
            elif place.size(location) == 0:
                empty.append(location)
            elif not asked_for and suffix == ".json" and not self._is_json_lines(place, location):
                unknown[suffix] += 1
            else:
                self._add_named(place, location)
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

    def _is_json_lines(self, place: Place, location: str) -> bool:
        """Whether a `.json` in a folder is a corpus: at least two lines, and an object in each."""
        file = self._identified(place, location)
        return file is not None and json_objects(file) >= 2

    def _add_stdin(self) -> None:
        if self._spool is None:
            raise UsageError("standard input is not read here", "write it to a file and name that")
        location = str(self._spool / "stdin")
        if location in self.found:
            self._repeated += 1
            return
        with storage_errors(self._spool), Path(location).open("wb") as spooled:
            shutil.copyfileobj(sys.stdin.buffer, spooled, _COPIED_BYTES)
        if Path(location).stat().st_size == 0:
            raise InputError("standard input is empty", "pipe text into it")
        if (file := self._identified(place_of(location), location, _SPOOLED_NAME)) is not None:
            self.found[location] = file

    def _keep(self, place: Place, location: str) -> None:
        identity = place.identity(location)
        if identity in self.found:
            self._repeated += 1
            return
        if (file := self._identified(place, location)) is None:
            return
        if suffix_of(file.name) == ".json" and self._format == "auto":
            check_json_lines(file)
        self.found[identity] = file

    def _identified(self, place: Place, location: str, title: str = "") -> CorpusFile | None:
        try:
            return identify(place, location, self._format, title)
        except CorpusError as error:
            if self._on_error == "refuse":
                raise
            self.foreign.append(error)
            return None


def _asked_for(pattern: str, location: str) -> bool:
    """Whether a pattern names the kind of a file that it matches, as `*.log` does and `*` does not."""
    last = file_name(pattern)
    suffix = PurePosixPath(location).suffix
    return has_wildcards(last) and (last.endswith(suffix) if suffix else re.fullmatch(r"\*+", last) is None)


def _counted(suffixes: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common())
