"""What is done about a record that cannot be read: refused at once, or counted and left out."""

from dataclasses import dataclass, field
from typing import Literal

from costbank.errors import CorpusError

__all__ = ["BadRecord", "BadRecords", "OnError"]

OnError = Literal["refuse", "skip"]

_MOST_SHOWN = 5


@dataclass(frozen=True)
class BadRecord:
    """One record that cannot be read: in which file, what is wrong with it, and where exactly."""

    location: str
    reason: str
    place: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.location} {self.reason} at {self.place}"


@dataclass
class BadRecords:
    """The bad records of what has been read; each part of a file has its own."""

    on_error: OnError = "refuse"
    count: int = 0
    shown: list[BadRecord] = field(default_factory=list)

    def add(self, record: BadRecord) -> None:
        """Count a record that is left out, and keep the first few to be shown.

        Raises:
            CorpusError: bad records are refused.
        """
        if self.on_error == "refuse":
            advice = "--on-error skip leaves such records out"
            raise CorpusError(str(record), f"{record.hint}; {advice}" if record.hint else advice)
        self.count += 1
        if len(self.shown) < _MOST_SHOWN:
            self.shown.append(record)
