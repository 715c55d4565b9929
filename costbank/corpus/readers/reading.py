"""How documents are read: what counts as one, and what to do with unreadable records."""

from dataclasses import dataclass, field
from typing import Literal

from costbank.errors import CorpusError

__all__ = ["BadRecord", "BadRecords", "DocumentRule", "OnError", "ReadOptions"]

DocumentRule = Literal["line", "paragraph"]
OnError = Literal["refuse", "skip"]

_MOST_SHOWN = 5


@dataclass(frozen=True)
class ReadOptions:
    """What counts as a document.

    `rule` is for text files. `text_field` names the key of a JSON object, or the column of a Parquet file, that holds
    the text; `a.b` is `b` within `a`, unless a key or column has this whole name.
    """

    rule: DocumentRule = "line"
    text_field: str = "text"


@dataclass(frozen=True)
class BadRecord:
    """One record that cannot be read: its file, what is wrong with it, and its exact position."""

    location: str
    reason: str
    position: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.location} {self.reason} at {self.position}"


@dataclass
class BadRecords:
    """The unreadable records met so far; each part of a file has a list of its own."""

    on_error: OnError = "refuse"
    count: int = 0
    shown: list[BadRecord] = field(default_factory=list)

    def add(self, record: BadRecord) -> None:
        """Count a record that is skipped, and keep the first few to show them.

        Raises:
            CorpusError: bad records are refused.
        """
        if self.on_error == "refuse":
            advice = "--on-error skip leaves such records out"
            raise CorpusError(str(record), f"{record.hint}; {advice}" if record.hint else advice)
        self.count += 1
        if len(self.shown) < _MOST_SHOWN:
            self.shown.append(record)
