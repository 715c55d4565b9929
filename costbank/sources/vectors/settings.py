"""The settings of the source `vectors`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from costbank.settings import BuildConfig, Execution, SettingsModel

__all__ = ["VectorsBuild", "VectorsConfig"]


class VectorsConfig(SettingsModel):
    """Existing vectors."""

    path: Annotated[Path | None, Execution] = Field(
        default=None, description="the file: word2vec text or binary, GloVe, .npy or .safetensors"
    )
    vocabulary: Annotated[Path | None, Execution] = Field(
        default=None,
        description="the words of an array's rows: a file with one word per line, or a tokenizer; not given: rows are "
        "token ids",
    )
    rows_are_ids: Annotated[bool, Execution] = Field(
        default=False, description="without a list of words, row i is token id i, even if many rows have no token"
    )
    tensor: Annotated[str | None, Execution] = Field(
        default=None, description="the name of the tensor in a .safetensors file"
    )
    match: Literal["exact", "word-start", "folded"] = Field(
        default="folded",
        description="a token matches the word with equal bytes (`exact`), also with or without a leading space "
        "(`word-start`), also in lower case (`folded`)",
    )


class VectorsBuild(BuildConfig):
    """The config of a bank of existing vectors."""

    source: Literal["vectors"] = "vectors"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    vectors: VectorsConfig = Field(default_factory=VectorsConfig)
