"""The base classes of settings, and the settings that every source has.

A setting marked as `Execution` changes where or how fast a bank is built, not its content; it is not part of the id.
The path of a setting, such as `word2vec.epochs`, is the same in a TOML file and on the command line. Each source has
its own settings in its folder, and `costbank.sources.registry` joins them.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from costbank.bank.store import NAME_PATTERN, default_store
from costbank.errors import UsageError
from costbank.hub import hub_name
from costbank.tokenizers.kinds import TokenizerKind

__all__ = [
    "BuildConfig",
    "Execution",
    "Location",
    "MapConfig",
    "NeighborsConfig",
    "Reference",
    "SettingsModel",
    "SpokenDefault",
    "StorageConfig",
    "default_cache",
    "expand_home",
    "is_location",
]


class Execution:
    """Marks a setting that does not change the content of a bank."""


class Location:
    """Marks a setting whose value is the location of files: paths, patterns or URLs."""


class Reference:
    """Marks a setting whose value refers to a bank: a name, or a path, which has a slash in it."""


@dataclass(frozen=True)
class SpokenDefault:
    """The default of a setting in words, if it depends on the machine or on other settings."""

    words: str


def default_cache() -> Path:
    """`$COSTBANK_CACHE`, else the platform's cache directory. Everything in it can be computed again."""
    return Path(os.environ.get("COSTBANK_CACHE") or user_cache_path("costbank") / "encoded")


class SettingsModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_true_for_numbers(cls, values: Any) -> Any:
        """Turn true and false into text, which settings with numbers refuse: pydantic would accept true as 1."""
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

    @model_validator(mode="before")
    @classmethod
    def _expand_home(cls, values: Any) -> Any:
        """Expand a leading ~ in paths, which a shell does not do within `--set store=~/banks`."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            name: expand_home(value) if name in fields and is_location(fields[name], value) else value
            for name, value in values.items()
        }


def is_location(field: FieldInfo, value: Any) -> bool:
    """Whether a value of a setting is the location of files: a path, or paths, patterns or URLs."""
    is_bank_path = Reference in field.metadata and "/" in str(value)
    return "Path" in str(field.annotation) or Location in field.metadata or is_bank_path


def expand_home(value: Any) -> Any:
    """A path, or a list of paths, in which a leading ~ is the home directory."""
    if isinstance(value, list | tuple):
        return [expand_home(path) for path in value]
    if not isinstance(value, str | Path):
        return value
    return os.path.expanduser(value)  # noqa: PTH111 - Path.expanduser raises an error for ~name of an unknown user


class StorageConfig(SettingsModel):
    """How the bank stores its rows."""

    dtype: Literal["F32", "F16", "BF16"] = Field(default="F32", description="element type of the stored rows")


class NeighborsConfig(SettingsModel):
    """The neighbor table and the index."""

    k: int | None = Field(
        default=None, ge=0, le=4_096,
        description="neighbors stored for each token; by default 64, or all others if fewer; 0: no table and no index",
    )  # fmt: skip
    method: Literal["auto", "exact", "int8", "reduced"] = Field(
        default="auto",
        description="how candidates are found: from all rows (`exact`), from 8 bits per element (`int8`, with torch), "
        "or from fewer dimensions (`reduced`); `auto` is exact up to 3e13 products",
    )
    min_recall: float = Field(
        default=0.99, ge=0, le=1,
        description="recall@10 that a method other than `exact` must reach on a sample, with a tolerance of 1e-4 for "
        "costs",
    )  # fmt: skip


class MapConfig(SettingsModel):
    """The two-dimensional map of the tokens. It is derived from the bank, so the bank's id does not cover it."""

    make: Annotated[bool, Execution] = Field(
        default=False, description="make a two-dimensional map of the tokens from the neighbor table (extra `map`)"
    )
    seed: Annotated[int, Execution] = Field(
        default=0, ge=0, lt=1 << 32, description="seed of the map; the same bank and seed give the same map"
    )


class BuildConfig(SettingsModel):
    """Settings of a build that every source has. Each source adds its own; `costbank.build_config` makes a config."""

    source: str = Field(description="where the vectors come from")
    tokenizer: Annotated[Path | None, Execution] = Field(
        default=None,
        description="tokenizer file or folder, or `org/name[@revision]` of a model in the local cache of Hugging Face; "
        "by default the model's",
    )
    tokenizer_kind: Annotated[TokenizerKind, Execution] = Field(
        default="auto", description="the tokenizer file's format, if its content does not show it"
    )
    name: Annotated[str | None, Execution] = Field(
        default=None, description="the bank's name; by default the tokenizer's or the model's name, and the source"
    )
    store: Annotated[Path, Execution, SpokenDefault("`$COSTBANK_STORE`, else the data directory")] = Field(
        default_factory=default_store, description="directory of banks"
    )
    cache: Annotated[Path, Execution, SpokenDefault("`$COSTBANK_CACHE`, else the cache directory")] = Field(
        default_factory=default_cache, description="directory of encoded text"
    )
    transforms: tuple[str, ...] = Field(
        default=(), description="transforms of the raw rows, in order: `center`, `abtt:2`, `pca:128`, `whiten`"
    )
    storage: StorageConfig = Field(default_factory=StorageConfig)
    neighbors: NeighborsConfig = Field(default_factory=NeighborsConfig)
    map: Annotated[MapConfig, Execution] = Field(default_factory=MapConfig)

    @field_validator("name")
    @classmethod
    def _valid_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(
                "use at most 64 lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit"
            )
        return name

    @field_validator("transforms")
    @classmethod
    def _valid_transforms(cls, transforms: tuple[str, ...]) -> tuple[str, ...]:
        from costbank.transforms import canonical_transform  # imported here because it needs NumPy

        try:
            return tuple(map(canonical_transform, transforms))
        except UsageError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None

    @property
    def bank_name(self) -> str:
        """The setting `name`; by default made from the tokenizer's or the model's name and the source."""
        path = self.tokenizer or self.named_after or Path("bank")
        resolved = path.resolve()
        stem = hub_name(path) or (resolved.name if resolved.is_dir() else resolved.stem)
        stem = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "bank"
        return self.name or f"{stem[:40]}-{self.source}"

    @property
    def named_after(self) -> Path | None:
        """The file or folder of the source that the bank is named after if no tokenizer is given."""
        return None

    def without_effect(self) -> set[str]:
        """Paths of settings that have no effect because of other settings; they are not part of a bank's id."""
        return {"neighbors.min_recall"} if self.neighbors.method == "exact" else set()
