"""The settings of the source `spelling`."""

from typing import Literal

from pydantic import Field

from costbank.settings import BuildConfig, SettingsModel

__all__ = ["SpellingBuild", "SpellingConfig"]


class SpellingConfig(SettingsModel):
    """The n-grams of the tokens' bytes."""

    dim: int = Field(default=256, ge=1, le=4_096, description="vector size; smaller if there are fewer tokens")
    min_ngram: int = Field(
        default=2, ge=1, le=7, description="minimum length of an n-gram in bytes, including boundary marks"
    )
    max_ngram: int = Field(default=5, ge=1, le=7, description="maximum length of an n-gram in bytes")


class SpellingBuild(BuildConfig):
    """The config of a bank of spelling vectors."""

    source: Literal["spelling"] = "spelling"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    spelling: SpellingConfig = Field(default_factory=SpellingConfig)
