"""The settings of the source `vectors`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from costbank.settings import BuildConfig, Execution, SettingsModel

__all__ = ["VectorsBuild", "VectorsConfig"]


class VectorsConfig(SettingsModel):
    """Vectors that exist already."""

    path: Annotated[Path | None, Execution] = Field(
        default=None, description="word2vec text or binary, GloVe, .npy or .safetensors"
    )
    vocabulary: Annotated[Path | None, Execution] = Field(
        default=None,
        description="the words of an array's rows: a file with a word a line, or a tokenizer; not given: rows are "
        "token ids",
    )
    rows_are_ids: Annotated[bool, Execution] = Field(
        default=False, description="without a list of words, take row i for token id i, however many rows have no token"
    )
    tensor: Annotated[str | None, Execution] = Field(default=None, description="which tensor of a .safetensors file")
    match: Literal["exact", "word-start", "folded"] = Field(
        default="folded",
        description="a token is the word of its bytes (`exact`), or also with or without a space before "
        "(`word-start`), or also in lower case (`folded`)",
    )


class VectorsBuild(BuildConfig):
    """A bank of vectors that exist already."""

    source: Literal["vectors"] = "vectors"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    vectors: VectorsConfig = Field(default_factory=VectorsConfig)
