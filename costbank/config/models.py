"""The one object that says what to build. Every default of a build lives here and nowhere else.

Settings marked as `Execution` change where or how fast the work is done, not what is asked for; they stay out of the
bank's id. A setting is named by its path, such as `word2vec.epochs`, in a TOML file as on the command line.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from platformdirs import user_cache_path
from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from costbank.bank.store import NAME_PATTERN, default_store
from costbank.corpus.readers.formats import FormatName
from costbank.corpus.readers.reading import DocumentRule, OnError
from costbank.engines.base import EngineKind
from costbank.errors import UsageError
from costbank.machine import usable_cores
from costbank.tokenizers.base import TokenizerKind
from costbank.transforms import canonical_transform

__all__ = [
    "SOURCE_SECTIONS",
    "BuildConfig",
    "CooccurrenceConfig",
    "CorpusConfig",
    "EngineConfig",
    "Execution",
    "LMHeadConfig",
    "Location",
    "NeighborsConfig",
    "Reference",
    "SpokenDefault",
    "TransferConfig",
    "VectorFileConfig",
    "VectorsConfig",
    "VocabularyConfig",
    "Word2VecConfig",
    "default_cache",
    "foreign_sections",
]

SOURCE_SECTIONS = {
    "word2vec": ("corpus", "word2vec", "engine"),
    "cooccurrence": ("corpus", "cooccurrence", "engine"),
    "lm-head": ("lm_head",),
    "vocabulary": ("vocabulary",),
    "vectors": ("vector_file",),
    "transfer": ("transfer",),
}
"""The sections of the config that belong to each source."""


def foreign_sections(source: str) -> set[str]:
    """The sections of the config that belong to other sources than this."""
    return {section for own in SOURCE_SECTIONS.values() for section in own} - set(SOURCE_SECTIONS[source])


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


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes true for 1, also where numbers are what a setting takes."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and {int, float} & {field.annotation, *get_args(field.annotation)}:
            return str(value).lower()
        return value


class CorpusConfig(_Settings):
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


class Word2VecConfig(_Settings):
    """Word2Vec (Mikolov et al. 2013) over token ids, trained by gensim."""

    sg: bool = Field(default=True, description="skip-gram; false trains CBOW")
    dim: int = Field(default=128, ge=1, le=65_536, description="vector size")
    window: int = Field(default=5, ge=1, le=1_000, description="tokens of context on each side")
    negative: int = Field(default=5, ge=0, le=100, description="noise tokens per positive pair")
    hs: bool = Field(default=False, description="hierarchical softmax, instead of noise or in addition to it")
    epochs: int = Field(default=5, ge=1, le=10_000, description="passes over the corpus")
    sample: float = Field(default=1e-3, ge=0, le=1, description="subsampling threshold of frequent tokens; 0 keeps all")
    min_count: int = Field(default=5, ge=1, description="ids that occur less often get no vector and are `unseen`")
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="seed of the initial vectors and the noise")
    workers: Annotated[int, Execution, SpokenDefault("number of cores")] = Field(
        default_factory=usable_cores,
        ge=1,
        le=256,
        description="training threads; only one of them is reproducible bit for bit",
    )


class CooccurrenceConfig(_Settings):
    """Exact window counts, PPMI, truncated SVD (Levy, Goldberg & Dagan 2015)."""

    dim: int = Field(default=128, ge=1, le=8_192, description="vector size")
    window: int = Field(default=5, ge=1, le=1_000, description="tokens of context on each side")
    weighting: Literal["linear", "flat"] = Field(
        default="linear", description="a pair at distance d counts window − d + 1 (`linear`), or 1 (`flat`)"
    )
    min_count: int = Field(default=5, ge=1, description="ids that occur less often get no vector and are `unseen`")
    min_pair: int = Field(default=1, ge=1, description="pairs of less weight than this are left out")
    contexts: int | None = Field(
        default=None, ge=1, description="how many of the most frequent ids are contexts; not given: all"
    )
    smoothing: float = Field(default=0.75, gt=0, le=1, description="the power of context counts")
    shift: float = Field(default=1.0, gt=0, description="the logarithm of this is subtracted from PMI")
    cap: float | None = Field(default=None, gt=0, description="upper limit of PMI; not given: none")
    power: float = Field(
        default=0.0, ge=0, le=1, description="the power of the singular values that scale the dimensions"
    )
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="seed of the start of the factorization")


class EngineConfig(_Settings):
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


class LMHeadConfig(_Settings):
    """Which model's head."""

    model: Annotated[Path | None, Execution] = Field(
        default=None, description="model folder, or a file of weights: safetensors, PyTorch's, GGUF"
    )
    tensor: Annotated[str | None, Execution] = Field(
        default=None, description="the tensor's name; not given: the LM head, else the embedding"
    )
    accept_other_tokenizer: Annotated[bool, Execution] = Field(
        default=False, description="build for a tokenizer that is not the model's own"
    )
    keep_placeholders: bool = Field(
        default=False,
        description="placeholders such as `<unused7>` keep their rows, for a model that was trained on them",
    )


class VocabularyConfig(_Settings):
    """Spelling: n-grams of the tokens' bytes."""

    dim: int = Field(default=256, ge=1, le=4_096, description="vector size; less where there are fewer tokens")
    min_ngram: int = Field(default=2, ge=1, le=7, description="bytes of the shortest n-gram, boundary marks included")
    max_ngram: int = Field(default=5, ge=1, le=7, description="bytes of the longest")


class VectorFileConfig(_Settings):
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


class TransferConfig(_Settings):
    """A bank of one tokenizer for another."""

    donor: Annotated[str | None, Execution, Reference] = Field(
        default=None, description="the bank to take vectors from"
    )
    method: Literal["segmentation", "omp"] = Field(
        default="segmentation",
        description="a new token's vector: the mean over its pieces in the donor's vocabulary, or orthogonal matching "
        "pursuit (`omp`): the sparse sum of shared tokens that it is in a space that knows all tokens",
    )
    guide: Annotated[str | None, Execution, Reference] = Field(
        default=None, description="for `omp`, a bank of the new tokenizer; not given: its spelling vectors"
    )
    atoms: int = Field(default=8, ge=1, le=256, description="for `omp`, shared tokens in a sum, at most")


class VectorsConfig(_Settings):
    """How the bank stores its rows."""

    dtype: Literal["F32", "F16", "BF16"] = Field(default="F32", description="element type of the stored rows")


class NeighborsConfig(_Settings):
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


class BuildConfig(_Settings):
    """What to build: the source and its settings, the tokenizer, and how the bank keeps the result."""

    source: Literal["word2vec", "cooccurrence", "lm-head", "vocabulary", "vectors", "transfer"] = Field(
        description="where vectors come from"
    )
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
    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    word2vec: Word2VecConfig = Field(default_factory=Word2VecConfig)
    cooccurrence: CooccurrenceConfig = Field(default_factory=CooccurrenceConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)
    lm_head: LMHeadConfig = Field(default_factory=LMHeadConfig)
    vocabulary: VocabularyConfig = Field(default_factory=VocabularyConfig)
    vector_file: VectorFileConfig = Field(default_factory=VectorFileConfig)
    transfer: TransferConfig = Field(default_factory=TransferConfig)
    transforms: tuple[str, ...] = Field(
        default=(), description="transforms of the raw rows, in this order: `center`, `abtt:2`, `pca:128`, `whiten`"
    )
    vectors: VectorsConfig = Field(default_factory=VectorsConfig)
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

    @model_validator(mode="after")
    def _of_this_source(self) -> "BuildConfig":
        """Refuse settings that have no effect, since another source has them."""
        for section in sorted(foreign_sections(self.source) & self.model_fields_set):
            given = getattr(self, section)
            for name, field in type(given).model_fields.items():
                if getattr(given, name) != field.get_default(call_default_factory=True):
                    sources = [source for source, own in SOURCE_SECTIONS.items() if section in own]
                    raise ValueError(
                        f"{section}.{name} is a setting of the source {' and '.join(sources)}, not of {self.source}"
                    )
        return self

    @property
    def bank_name(self) -> str:
        """The name given, else one made of the tokenizer's or the model's name and the source."""
        named = (self.tokenizer or self.lm_head.model or Path("bank")).resolve()
        stem = named.name if named.is_dir() else named.stem
        stem = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "bank"
        return self.name or f"{stem[:40]}-{self.source}"
