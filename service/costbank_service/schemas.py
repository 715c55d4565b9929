"""The shapes of the answers. Keys are stable within v1; new ones may be added."""

from typing import Any

from pydantic import BaseModel

from costbank.bank.manifest import IndexFacts, NeighborFacts, TokenizerFacts, VectorFacts
from costbank.files import FileDigest

__all__ = [
    "BankDetails",
    "BankSummary",
    "MatchedTokenEntry",
    "NearestAnswer",
    "NeighborEntry",
    "ServiceStatus",
    "TokenEntry",
]


class ServiceStatus(BaseModel):
    status: str


class BankSummary(BaseModel):
    """One bank of the list. A bank that cannot be opened has a `problem` and nothing after it."""

    name: str
    id: str
    latest: bool
    problem: str | None = None
    source: str | None = None
    vocab: int | None = None
    dim: int | None = None
    created: str | None = None


class BankDetails(BaseModel):
    """What a bank holds and where it came from, without the paths of the machine that built it."""

    name: str
    id: str
    created: str
    costbank: str
    source: str
    reproducible: bool
    config: dict[str, Any]
    facts: dict[str, Any]
    inputs: list[dict[str, Any]]
    libraries: dict[str, str]
    tokenizer: TokenizerFacts
    vectors: VectorFacts
    status: dict[str, int]
    neighbors: NeighborFacts
    index: IndexFacts
    files: dict[str, FileDigest]


class TokenEntry(BaseModel):
    id: int
    text: str
    status: str
    count: int | None


class MatchedTokenEntry(TokenEntry):
    """The token that was taken; `other` is another one that the same text may mean, such as the piece within a word."""

    other: TokenEntry | None = None


class NeighborEntry(BaseModel):
    id: int
    text: str
    cost: float


class NearestAnswer(BaseModel):
    """The tokens of least cost, ascending; none where the token has no vector.

    `exact`: whether these are surely the tokens of least cost. It is false where a table is not exact, or where an
    index that keeps 8 bits an element proposed them; the costs are exact always.
    """

    bank: str
    id: str
    token: MatchedTokenEntry
    exact: bool
    neighbors: list[NeighborEntry]
