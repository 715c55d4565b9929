"""How a corpus is read: what makes a document, and which part of a file is meant."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["WHOLE", "DocumentRule", "Part", "ReadOptions"]

DocumentRule = Literal["line", "paragraph"]


@dataclass(frozen=True)
class ReadOptions:
    """What is a document.

    `rule` is for text files. `text_field` names the key of a JSON object, or the column of a Parquet file, that holds
    the text; `a.b` is `b` within `a`, unless there is something that goes by the whole name.
    """

    rule: DocumentRule = "line"
    text_field: str = "text"


@dataclass(frozen=True)
class Part:
    """A range of a file: of bytes where it is text or JSON lines, of row groups where it is Parquet.

    A part of text begins where a document may begin, so it holds whole documents. `stop` is None for the end.
    """

    start: int
    stop: int | None


WHOLE = Part(0, None)
