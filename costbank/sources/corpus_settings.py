"""The settings that sources which learn from a corpus have in common."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import ByteSize, Field, field_validator

from costbank.corpus.readers.formats import FormatName
from costbank.corpus.readers.reading import DocumentRule, OnError
from costbank.engines.base import EngineKind
from costbank.settings import BuildConfig, Execution, Location, SettingsModel

__all__ = ["CorpusBuild", "CorpusConfig", "EngineConfig"]


class CorpusConfig(SettingsModel):
    """Which text, and what a document is."""

    files: Annotated[tuple[str, ...], Execution, Location] = Field(
        default=(), description="files, folders, patterns such as `data/**/*.jsonl`, URLs, or `-` for standard input"
    )
    format: Annotated[FormatName, Execution] = Field(
        default="auto", description="format of the files, where their names and contents do not tell"
    )
    documents: DocumentRule = Field(
        default="line", description="in text, a document is a line, or a paragraph between blank lines"
    )
    text_field: str = Field(
        default="text", description="the key or column of the text, in JSON lines and Parquet; `a.b` is `b` within `a`"
    )
    separator: int | None = Field(
        default=None, ge=0, description="the id that ends a document, in files of token ids that have no index"
    )
    on_error: Annotated[OnError, Execution] = Field(
        default="refuse", description="a record that cannot be read ends the build, or is left out (`skip`)"
    )
    sampling: float | None = Field(
        default=None, gt=0, le=100,
        description="draw each text's segmentation: a unigram or BytePiece model's by its probability to this power, "
        "a BPE model's by leaving out merges with this probability",
    )  # fmt: skip
    sampling_seed: int = Field(default=1, ge=0, lt=1 << 32, description="seed of the segmentations that are drawn")

    @field_validator("files", mode="before")
    @classmethod
    def _as_text(cls, files: Any) -> Any:
        given = [files] if isinstance(files, str | Path) else files
        return tuple(map(str, given)) if isinstance(given, list | tuple) else given


class EngineConfig(SettingsModel):
    """Who reads and counts a corpus."""

    kind: Annotated[EngineKind, Execution] = Field(
        default="local", description="processes of this machine, or a Ray cluster (`ray`)"
    )
    processes: Annotated[int | None, Execution] = Field(
        default=None, ge=1, le=65_536, description="pieces of work at a time; not given: one for each core"
    )
    memory: Annotated[ByteSize | None, Execution] = Field(
        default=None,
        ge=64 << 20,
        description="memory for counting on one machine, such as `4GB`; not given: half of what it has",
    )
    ray_address: Annotated[str | None, Execution] = Field(
        default=None, description="address of a running Ray cluster; not given: one is started on this machine"
    )


class CorpusBuild(BuildConfig):
    """A bank from text."""

    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    engine: Annotated[EngineConfig, Execution] = Field(default_factory=EngineConfig)

    def without_effect(self) -> set[str]:
        """Also what later versions added to a corpus's settings, where it has its default: ids stay what they were."""
        unset = {"sampling_seed"} if self.corpus.sampling is None else set()
        for name in ("text_field", "separator", "sampling"):
            if getattr(self.corpus, name) == CorpusConfig.model_fields[name].default:
                unset.add(name)
        return super().without_effect() | {f"corpus.{name}" for name in unset}
