"""Options for reading documents, and the list of unreadable records."""

from dataclasses import dataclass, field
from typing import Literal

from costbank.errors import CorpusError

__all__ = ["BadRecord", "BadRecords", "DocumentRule", "OnError", "ReadOptions"]

DocumentRule = Literal["line", "paragraph"]
OnError = Literal["refuse", "skip"]

_MAX_SHOWN = 5


@dataclass(frozen=True)
class ReadOptions:
    """What counts as a document.

    Attributes:
        rule: for text files: a document is a line or a paragraph.
        text_field: the key of a JSON object, or the column of a Parquet file, that holds the text. `a.b` is `b` within
            `a`, unless a key or column is named `a.b`.
    """

    rule: DocumentRule = "line"
    text_field: str = "text"


@dataclass(frozen=True)
class BadRecord:
    """An unreadable record: its file, the problem, and its exact position."""

    location: str
    reason: str
    position: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.location} {self.reason} at {self.position}"


@dataclass
class BadRecords:
    """The unreadable records of one part of a file: their number, and the first few."""

    on_error: OnError = "refuse"
    count: int = 0
    shown: list[BadRecord] = field(default_factory=list)

    def add(self, record: BadRecord) -> None:
        """Add a record.

        Raises:
            CorpusError: `on_error` is `refuse`.
        """
        if self.on_error == "refuse":
            advice = "use --on-error skip to skip such records"
            raise CorpusError(str(record), f"{record.hint}; {advice}" if record.hint else advice)
        self.count += 1
        if len(self.shown) < _MAX_SHOWN:
            self.shown.append(record)
