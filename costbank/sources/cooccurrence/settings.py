"""The settings of the source `cooccurrence`."""

from typing import Literal

from pydantic import Field, field_validator

from costbank.settings import SettingsModel
from costbank.sources.corpus_settings import CorpusBuild

__all__ = ["CooccurrenceBuild", "CooccurrenceConfig", "Side"]

Side = Literal["both", "left", "right"]

_BEFORE = {"side": "both", "positions": False, "ngram": 1}
"""The values with which a build counts what every build counted before there were these settings."""


class CooccurrenceConfig(SettingsModel):
    """Exact co-occurrence counts, PPMI and truncated SVD (Levy, Goldberg & Dagan 2015)."""

    dim: int = Field(default=128, ge=1, le=8_192, description="vector size")
    window: int = Field(default=2, ge=1, le=1_000, description="tokens of context on a side")
    weighting: Literal["linear", "flat"] = Field(
        default="linear", description="the weight of a pair at distance d: window − d + 1 (`linear`), or 1 (`flat`)"
    )
    side: Side = Field(
        default="left",
        description="whether the tokens on the left of a token, on its right or on both sides are its contexts",
    )
    positions: bool = Field(
        default=False, description="whether the same token at another distance or side is another context"
    )
    ngram: int = Field(
        default=1, ge=1, le=5,
        description="the n tokens next to a token are a context too, for each n from 2 to this number",
    )  # fmt: skip
    ngram_buckets: int = Field(
        default=1 << 20, ge=1 << 10, le=1 << 24,
        description="the number of contexts that the n-grams of a length and side are hashed into, a power of two",
    )  # fmt: skip
    min_count: int = Field(default=5, ge=1, description="ids that occur less often get no vector and are `unseen`")
    min_pair: int = Field(default=1, ge=1, description="pairs with a smaller total weight are ignored")
    contexts: int | None = Field(
        default=None, ge=1, description="use only this many of the most frequent contexts; not given: all"
    )
    smoothing: float = Field(default=0.75, gt=0, le=1, description="the exponent of context counts")
    shift: float = Field(default=1.0, gt=0, description="its logarithm is subtracted from PMI")
    cap: float | None = Field(default=None, gt=0, description="upper limit of PMI; not given: none")
    power: float = Field(
        default=0.0, ge=0, le=1, description="the exponent of the singular values that scale the dimensions"
    )
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="seed of the random start of the factorization")

    @field_validator("ngram_buckets")
    @classmethod
    def _power_of_two(cls, buckets: int) -> int:
        if buckets & (buckets - 1):
            raise ValueError(f"give a power of two, such as {1 << buckets.bit_length() - 1}")
        return buckets


class CooccurrenceBuild(CorpusBuild):
    """The config of a bank of factorized co-occurrence counts."""

    source: Literal["cooccurrence"] = "cooccurrence"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    cooccurrence: CooccurrenceConfig = Field(default_factory=CooccurrenceConfig)

    def without_effect(self) -> set[str]:
        """Include later settings that count as before they existed, so the ids of older banks do not change."""
        as_before = {name for name, value in _BEFORE.items() if getattr(self.cooccurrence, name) == value}
        if "ngram" in as_before:
            as_before.add("ngram_buckets")
        return super().without_effect() | {f"cooccurrence.{name}" for name in as_before}
