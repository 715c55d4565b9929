"""What settings are made of, and those that every source has.

Settings marked as `Execution` change where or how fast the work is done, not what is built; they are not part of a
bank's id. A setting is named by its path, such as `word2vec.epochs`, in a TOML file as on the command line. Each source
has its own settings in its folder, and `costbank.sources.registry` joins them.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from costbank.bank.store import NAME_PATTERN, default_store
from costbank.errors import UsageError
from costbank.tokenizers.base import TokenizerKind
from costbank.transforms import canonical_transform

__all__ = [
    "BuildConfig",
    "Execution",
    "Location",
    "NeighborsConfig",
    "Reference",
    "SettingsModel",
    "SpokenDefault",
    "StorageConfig",
    "default_cache",
]


class Execution:
    """Marks a setting that says where or how fast, not what."""


class Location:
    """Marks a setting that names files, by paths or otherwise."""


class Reference:
    """Marks a setting that names a bank: by a name, or by a path, which then has a slash in it."""


@dataclass(frozen=True)
class SpokenDefault:
    """What the default of a setting is, in words, where it depends on the machine or on other settings."""

    words: str


def default_cache() -> Path:
    """`$COSTBANK_CACHE`, else the platform's cache directory. Everything in it can be made again."""
    return Path(os.environ.get("COSTBANK_CACHE") or user_cache_path("costbank") / "encoded")


class SettingsModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _true_is_not_one(cls, values: Any) -> Any:
        """Refuse true where a setting takes a number: pydantic would take it for 1."""
        if not isinstance(values, dict):
            return values
        numbers = {
            name
            for name, field in cls.model_fields.items()
            if {int, float} & {field.annotation, *get_args(field.annotation)}
        }
        return {
            name: str(value).lower() if isinstance(value, bool) and name in numbers else value
            for name, value in values.items()
        }


class StorageConfig(SettingsModel):
    """How the bank stores its rows."""

    dtype: Literal["F32", "F16", "BF16"] = Field(default="F32", description="element type of the stored rows")


class NeighborsConfig(SettingsModel):
    """The neighbor table and the index."""

    k: int | None = Field(
        default=None, ge=0, le=4_096,
        description="neighbors stored for each token; not given: 64, or all there are; 0: neither table nor index",
    )  # fmt: skip
    method: Literal["auto", "exact", "int8", "reduced"] = Field(
        default="auto",
        description="who proposes candidates: all rows (`exact`), 8 bits an element (`int8`, by torch), "
        "fewer dimensions (`reduced`); `auto` is exact up to 3e13 products",
    )
    min_recall: float = Field(
        default=0.99, ge=0, le=1,
        description="recall@10, costs within 1e-4 counted as found, that a method other than `exact` must reach on "
        "a sample",
    )  # fmt: skip


class BuildConfig(SettingsModel):
    """What to build: the tokenizer, and how the bank keeps the result. Each source adds its own settings.

    `costbank.build_config` makes one.
    """

    source: str = Field(description="where vectors come from")
    tokenizer: Annotated[Path | None, Execution] = Field(
        default=None, description="tokenizer file or folder; not given: the model's"
    )
    tokenizer_kind: Annotated[TokenizerKind, Execution] = Field(
        default="auto", description="the tokenizer file's format, where its content does not tell"
    )
    name: Annotated[str | None, Execution] = Field(
        default=None, description="the bank's name; not given: the tokenizer's or the model's name, and the source"
    )
    store: Annotated[Path, Execution, SpokenDefault("`$COSTBANK_STORE`, else the data directory")] = Field(
        default_factory=default_store, description="directory of banks"
    )
    cache: Annotated[Path, Execution, SpokenDefault("`$COSTBANK_CACHE`, else the cache directory")] = Field(
        default_factory=default_cache, description="directory of encoded text"
    )
    transforms: tuple[str, ...] = Field(
        default=(), description="transforms of the raw rows, in this order: `center`, `abtt:2`, `pca:128`, `whiten`"
    )
    storage: StorageConfig = Field(default_factory=StorageConfig)
    neighbors: NeighborsConfig = Field(default_factory=NeighborsConfig)

    @field_validator("name")
    @classmethod
    def _valid_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(NAME_PATTERN, name):
            raise ValueError("use lower-case letters, digits, '.', '_' and '-', at most 64, first a letter or digit")
        return name

    @field_validator("transforms")
    @classmethod
    def _valid_transforms(cls, transforms: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(map(canonical_transform, transforms))
        except UsageError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None

    @property
    def bank_name(self) -> str:
        """The name given, else one made of the tokenizer's or the model's name and the source."""
        named = (self.tokenizer or self.named_after or Path("bank")).resolve()
        stem = named.name if named.is_dir() else named.stem
        stem = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "bank"
        return self.name or f"{stem[:40]}-{self.source}"

    @property
    def named_after(self) -> Path | None:
        """A file or folder of the source that a bank may be named after, where no tokenizer is given."""
        return None

    def without_effect(self) -> set[str]:
        """Paths of settings that change nothing, whatever their value, since others are as they are.

        Such settings are not part of a bank's id.
        """
        return {"neighbors.min_recall"} if self.neighbors.method == "exact" else set()
