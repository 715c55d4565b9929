"""The settings of the source `spelling`."""

from typing import Literal

from pydantic import Field

from costbank.settings import BuildConfig, SettingsModel

__all__ = ["SpellingBuild", "SpellingConfig"]


class SpellingConfig(SettingsModel):
    """N-grams of the tokens' bytes."""

    dim: int = Field(default=256, ge=1, le=4_096, description="vector size; less where there are fewer tokens")
    min_ngram: int = Field(default=2, ge=1, le=7, description="bytes of the shortest n-gram, boundary marks included")
    max_ngram: int = Field(default=5, ge=1, le=7, description="bytes of the longest")


class SpellingBuild(BuildConfig):
    """A bank of the tokens' spelling."""

    source: Literal["spelling"] = "spelling"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    spelling: SpellingConfig = Field(default_factory=SpellingConfig)
