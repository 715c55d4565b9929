"""The schemas of the answers. Within v1 keys may be added, but never removed or changed."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from costbank.bank.manifest import IndexFacts, NeighborFacts, TokenizerFacts, VectorFacts
from costbank.files import FileDigest

__all__ = [
    "BankDetails",
    "BankSummary",
    "BatchAnswer",
    "BatchResult",
    "CompareAnswer",
    "CostsAnswer",
    "CostsBody",
    "Example",
    "ExamplesAnswer",
    "LabelTarget",
    "MapAnswer",
    "MatchedTokenEntry",
    "NearestAnswer",
    "NearestBody",
    "NeighborEntry",
    "QuarantinedBank",
    "Readiness",
    "ServiceStatus",
    "TargetEntry",
    "TargetsAnswer",
    "TokenAnswer",
    "TokenBytesEntry",
    "TokenDetails",
    "TokenEntry",
    "TokensAnswer",
    "VectorsAnswer",
]


class ServiceStatus(BaseModel):
    status: str


class QuarantinedBank(BaseModel):
    """A bank that is not served, because its files are damaged."""

    name: str
    id: str
    problem: str


class Readiness(ServiceStatus):
    quarantined: list[QuarantinedBank] = []


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


class TokenBytesEntry(TokenEntry):
    bytes: str = Field(description="in hexadecimal", pattern="^([0-9a-f]{2})*$")


class TokenDetails(TokenBytesEntry):
    has_vector: bool


class TokenAnswer(BaseModel):
    bank: str
    id: str
    token: TokenDetails


class TokensAnswer(BaseModel):
    """A page of the tokens that match, by ascending id."""

    bank: str
    id: str
    total: int = Field(description="number of all matches")
    tokens: list[TokenBytesEntry]
    next: str | None = Field(description="`cursor` of the next page; null for the last one")


class BatchResult(BaseModel):
    """The neighbors of one token or vector; `exact` is as in NearestAnswer."""

    token: TokenEntry | None = Field(description="null for a vector")
    exact: bool
    neighbors: list[NeighborEntry]


class BatchAnswer(BaseModel):
    """A result for every token or vector of the request, in its order."""

    bank: str
    id: str
    results: list[BatchResult]


class Example(BaseModel):
    token: TokenEntry
    neighbors: list[NeighborEntry]


class ExamplesAnswer(BaseModel):
    """Frequent words with their nearest tokens, as on the bank's card; none without a neighbor table."""

    bank: str
    id: str
    examples: list[Example]


class CostsAnswer(BaseModel):
    """`costs[i][j]` is the cost of `rows[i]` to `cols[j]`."""

    bank: str
    id: str
    rows: list[int]
    cols: list[int]
    costs: list[list[float]]


class VectorsAnswer(BaseModel):
    bank: str
    id: str
    ids: list[int]
    vectors: list[list[float]]


class MapAnswer(BaseModel):
    """The place of every token, in the order of their ids."""

    bank: str
    id: str
    xy: list[Annotated[list[float], Field(min_length=2, max_length=2)] | None]


class CompareAnswer(BaseModel):
    """The neighbors of a token in two banks, and how far they agree: from 0, nothing in common, to 1."""

    a: NearestAnswer
    b: NearestAnswer
    same_tokenizer: bool
    overlap: float = Field(ge=0, le=1)
    rank_biased_overlap: float = Field(ge=0, le=1)


class TargetEntry(NeighborEntry):
    share: float = Field(ge=0, le=1, description="this token's probability in the target")


class LabelTarget(BaseModel):
    """The target of a label. Shares sum to 1: the label's, those of `others`, and `rest`, of all further tokens.

    `perplexity` is that of the shares of the other tokens among themselves: over how many tokens they spread.
    """

    token: TokenEntry
    softened: bool = Field(description="false for a label that keeps its whole share")
    label_share: float
    others: list[TargetEntry] = Field(description="the largest shares of other tokens, descending")
    rest: float
    perplexity: float | None


class TargetsAnswer(BaseModel):
    """The targets of labels for the loss `EMOLoss(bank)`.

    `split` says where the labels come from: `given` ids, or `longest-match` of a text, which can differ from the
    tokenizer's own split. `unmatched` has the bytes of the text that are in no token, in hexadecimal.
    """

    bank: str
    id: str
    split: str
    unmatched: str
    loss: str
    weight: float
    temperature: float
    targets: list[LabelTarget]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _whole(value: Any) -> Any:
    """JSON has one type of numbers: 5.0 is a whole number too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


TokenId = Annotated[int, Field(ge=0, lt=1 << 31), BeforeValidator(_whole)]


class CostsBody(_Body):
    rows: list[TokenId] = Field(min_length=1)
    cols: list[TokenId] = Field(min_length=1)


class NearestBody(_Body):
    """Either `token_ids` or `vectors`, each vector with as many elements as the bank has dimensions."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["token_ids"]}, {"required": ["vectors"]}]}
    )  # fmt: skip

    token_ids: list[TokenId] | None = Field(default=None, min_length=1)
    vectors: list[list[FiniteFloat]] | None = Field(default=None, min_length=1)
    k: Annotated[int, Field(ge=1), BeforeValidator(_whole)] = 10

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.token_ids is None) == (self.vectors is None):
            raise ValueError("give either token_ids or vectors")
        return self
