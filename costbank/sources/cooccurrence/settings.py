"""The settings of the source `cooccurrence`."""

from typing import Literal

from pydantic import Field

from costbank.settings import SettingsModel
from costbank.sources.corpus_settings import CorpusBuild

__all__ = ["CooccurrenceBuild", "CooccurrenceConfig"]


class CooccurrenceConfig(SettingsModel):
    """Exact co-occurrence counts, PPMI and truncated SVD (Levy, Goldberg & Dagan 2015)."""

    dim: int = Field(default=128, ge=1, le=8_192, description="vector size")
    window: int = Field(default=5, ge=1, le=1_000, description="tokens of context on each side")
    weighting: Literal["linear", "flat"] = Field(
        default="linear", description="the weight of a pair at distance d: window − d + 1 (`linear`), or 1 (`flat`)"
    )
    min_count: int = Field(default=5, ge=1, description="ids that occur less often get no vector and are `unseen`")
    min_pair: int = Field(default=1, ge=1, description="pairs with a smaller total weight are ignored")
    contexts: int | None = Field(
        default=None, ge=1, description="use only this many of the most frequent ids as contexts; not given: all"
    )
    smoothing: float = Field(default=0.75, gt=0, le=1, description="the exponent of context counts")
    shift: float = Field(default=1.0, gt=0, description="its logarithm is subtracted from PMI")
    cap: float | None = Field(default=None, gt=0, description="upper limit of PMI; not given: none")
    power: float = Field(
        default=0.0, ge=0, le=1, description="the exponent of the singular values that scale the dimensions"
    )
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="seed of the random start of the factorization")


class CooccurrenceBuild(CorpusBuild):
    """The config of a bank of factorized co-occurrence counts."""

    source: Literal["cooccurrence"] = "cooccurrence"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    cooccurrence: CooccurrenceConfig = Field(default_factory=CooccurrenceConfig)
