"""The schemas of the answers. Within v1 keys may be added, but never removed or changed."""

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
    """One bank of the list. A bank that cannot be opened has a `problem` and none of the keys after it."""

    name: str
    id: str
    latest: bool
    problem: str | None = None
    source: str | None = None
    vocab: int | None = None
    dim: int | None = None
    created: str | None = None


class BankDetails(BaseModel):
    """What a bank contains and how it was made, without paths of the machine that built it."""

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
    """The token that a text matched; `other` is another match, such as the piece inside a word."""

    other: TokenEntry | None = None


class NeighborEntry(BaseModel):
    id: int
    text: str
    cost: float


class NearestAnswer(BaseModel):
    """The tokens with the lowest costs, ascending; empty if the token has no vector.

    `exact` is false if other tokens may have lower costs: the neighbor table is approximate, or an index with 8 bits
    per element proposed the candidates. The costs themselves are always exact.
    """

    bank: str
    id: str
    token: MatchedTokenEntry
    exact: bool
    neighbors: list[NeighborEntry]
