"""The common settings of sources that use a corpus."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import ByteSize, Field, field_validator

from costbank.corpus.readers.formats import FormatName
from costbank.corpus.readers.reading import DocumentRule, OnError
from costbank.engines.base import EngineKind
from costbank.settings import BuildConfig, Execution, Location, SettingsModel

__all__ = ["CorpusBuild", "CorpusConfig", "EngineConfig"]


class CorpusConfig(SettingsModel):
    """The text, and what counts as a document."""

    files: Annotated[tuple[str, ...], Execution, Location] = Field(
        default=(), description="files, folders, patterns such as `data/**/*.jsonl`, URLs, or `-` for standard input"
    )
    format: Annotated[FormatName, Execution] = Field(
        default="auto", description="format of the files; `auto` detects it from their names and contents"
    )
    documents: DocumentRule = Field(
        default="line", description="in text files, a document is a line, or a paragraph between blank lines"
    )
    text_field: str = Field(
        default="text", description="in JSON lines and Parquet, the key or column of the text; `a.b` is `b` within `a`"
    )
    separator: int | None = Field(
        default=None, ge=0, description="in files of token ids without an index, the id that ends a document"
    )
    on_error: Annotated[OnError, Execution] = Field(
        default="refuse", description="an unreadable record stops the build (`refuse`), or is skipped (`skip`)"
    )
    sampling: float | None = Field(
        default=None, gt=0, le=100,
        description="segment each text at random: for a unigram or BytePiece model, with probabilities raised to this "
        "power; for a BPE model, by skipping merges with this probability; not given: the best segmentation",
    )  # fmt: skip
    sampling_seed: int = Field(default=1, ge=0, lt=1 << 32, description="seed of the random segmentations")

    @field_validator("files", mode="before")
    @classmethod
    def _as_text(cls, files: Any) -> Any:
        names = [files] if isinstance(files, str | Path) else files
        return tuple(map(str, names)) if isinstance(names, list | tuple) else names


class EngineConfig(SettingsModel):
    """How a corpus is read and counted."""

    kind: Annotated[EngineKind, Execution] = Field(
        default="local", description="processes of this machine (`local`), or a Ray cluster (`ray`)"
    )
    processes: Annotated[int | None, Execution] = Field(
        default=None, ge=1, le=65_536, description="parts processed at a time; not given: one per core"
    )
    memory: Annotated[ByteSize | None, Execution] = Field(
        default=None,
        ge=64 << 20,
        description="memory for counting on one machine, such as `4GB`; not given: half of its memory",
    )
    ray_address: Annotated[str | None, Execution] = Field(
        default=None, description="address of a running Ray cluster; not given: start one on this machine"
    )


class CorpusBuild(BuildConfig):
    """The config of a bank from a corpus."""

    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    engine: Annotated[EngineConfig, Execution] = Field(default_factory=EngineConfig)

    def without_effect(self) -> set[str]:
        """Include later settings that have their default values, so the ids of older banks do not change."""
        unset = {"sampling_seed"} if self.corpus.sampling is None else set()
        for name in ("text_field", "separator", "sampling"):
            if getattr(self.corpus, name) == CorpusConfig.model_fields[name].default:
                unset.add(name)
        return super().without_effect() | {f"corpus.{name}" for name in unset}
