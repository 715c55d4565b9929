"""Build a bank from a config: source → transforms → unit rows → neighbors and index → bank."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from shutil import disk_usage
from typing import Any

import numpy as np
from jaxtyping import Float32

import costbank
from costbank.analysis.layout import LayoutOptions, TokenMap, check_neighbors, lay_out, layout_method
from costbank.bank import Bank, BankWriter, Store
from costbank.bank.card import CardExample, example_tokens, write_card
from costbank.bank.history import TokenizerChange, latest_manifest
from costbank.bank.manifest import BankFacts, IndexFacts, NeighborFacts, TokenizerFacts, VectorFacts
from costbank.config import BuildConfig, semantic_config
from costbank.element_types import ELEMENT_TYPES
from costbank.errors import InputError, StorageError, UsageError, require
from costbank.hub import cache_note
from costbank.neighbors import NeighborPlan, NeighborResult, NeighborTable, build_index, find_neighbors, plan_neighbors
from costbank.progress import Progress, QuietProgress
from costbank.sources import SourcePlan, SourceVectors, plan_source
from costbank.tensorfile import MappedTensor
from costbank.threads import prefetch
from costbank.tokenizers import Tokenizer
from costbank.transforms import Affine, fit_transforms, normalize, output_dim
from costbank.vocab import Vocab

__all__ = ["build"]

_DEFAULT_K = 64
_ESTIMATE_SHOWN_SECONDS = 20
_LEAST_VECTORS = 2


@dataclass
class _Clock:
    """Measures the duration of each step, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - began, 3)


def build(config: BuildConfig, progress: Progress | None = None) -> Bank:
    """Build the bank that `config` describes, and open it.

    The same inputs and config give the same id; an existing bank with that id is not rewritten. If the build fails or
    is interrupted, its incomplete files are removed.

    Raises:
        CostbankError: an input, a setting or the store is unusable. Everything that can be checked in advance is
            checked before any work starts.
    """
    progress = progress or QuietProgress()
    plan = _plan(config, progress)
    clock = _Clock()
    with BankWriter(plan.config.store / plan.config.bank_name) as writer:
        with clock.time("source"):
            vectors = plan.source.make(progress)
        rows = _write_rows(plan, vectors, writer, clock, progress)
        table = _write_neighbors(plan, rows, writer, clock, progress)
        token_map = _write_map(plan, rows, table, writer, clock, progress)
        examples = _card_examples(rows.vocab, table.neighbors.table)
        facts = _facts(plan, vectors, rows, table, clock)
        if token_map:
            facts = facts.model_copy(update={"map": token_map.facts})
        before = latest_manifest(Store(plan.config.store).banks_of(plan.config.bank_name))
        path = writer.publish(facts, lambda manifest: write_card(manifest, examples, plan.source.advice))
    bank = Bank(path)
    if change := TokenizerChange.between(bank.name, before, bank.manifest):
        progress.note(f"warning: {change}")
    return bank


@dataclass(frozen=True)
class _Plan:
    """A build with checked inputs and settings.

    Attributes:
        config: the config, with the number of neighbors and the method resolved.
        source: makes the vectors.
        dim: the number of elements of a row after transforms.
        neighbors: the method for the neighbor table.
    """

    config: BuildConfig
    source: SourcePlan
    dim: int
    neighbors: NeighborPlan


def _plan(config: BuildConfig, progress: Progress) -> _Plan:
    """Check everything that can be checked before any work starts."""
    source = plan_source(config)
    for note in filter(None, map(cache_note, (config.named_after, config.tokenizer))):
        progress.note(note)
    vocab_size, raw_dim = source.shape
    dim = output_dim(config.transforms, raw_dim)
    k = _neighbors_per_token(config, source)
    if k:
        require("faiss", "build")
    if config.map.make:
        check_neighbors(k)
        layout_method()
    with _reproducible_sums(config):
        pass  # raises if threadpoolctl is needed and not installed
    neighbors = plan_neighbors(vocab_size, dim, k, config.neighbors.method)
    resolved = config.neighbors.model_copy(update={"k": k, "method": neighbors.method})
    config = config.model_copy(update={"neighbors": resolved})
    _check_space(config, vocab_size, dim)
    if k and neighbors.seconds > _ESTIMATE_SHOWN_SECONDS:
        progress.note(f"{neighbors}; training with dense costs needs no table: --set neighbors.k=0 omits it")
    return _Plan(config, source, dim, neighbors)


@dataclass(frozen=True)
class _WrittenRows:
    """The result of `_write_rows`.

    Attributes:
        stored: the rows in the file, mapped.
        usable: which rows are not zero.
        vocab: the vocabulary, in which tokens without a row are marked as unseen.
        transforms: a record of each transform.
    """

    stored: MappedTensor
    usable: np.ndarray
    vocab: Vocab
    transforms: list[Any]


def _write_rows(
    plan: _Plan, vectors: SourceVectors, writer: BankWriter, clock: _Clock, progress: Progress
) -> _WrittenRows:
    """Transform, normalize and write the vectors, and write the vocabulary with the status that follows from them."""
    config, vocab_size = plan.config, plan.source.shape[0]
    transform, applied = Affine(), []
    with _reproducible_sums(config):
        if config.transforms:
            with clock.time("transforms"), progress.step("fit transforms", vocab_size, "rows") as step:
                transform, applied = fit_transforms(config.transforms, vectors.blocks, step.advance)
        rows = _UnitRows(vectors, plan.source, transform)
        with clock.time("vectors"), progress.step("write vectors", vocab_size, "rows") as step:
            blocks = prefetch(rows.unit_blocks(step.advance))
            stored = writer.write_vectors((vocab_size, plan.dim), config.storage.dtype, blocks)
    if rows.usable.sum() < _LEAST_VECTORS:
        raise InputError(
            f"{int(rows.usable.sum())} of {vocab_size:,} tokens have a vector; a bank needs at least {_LEAST_VECTORS}",
            "check that the source has rows for this tokenizer's tokens, and that the transforms do not make them zero",
        )
    vocab = vectors.vocab.with_evidence(rows.usable)
    writer.write_tokens(vocab)
    writer.write_rows(rows.norms, rows.to_unused)
    return _WrittenRows(stored, rows.usable, vocab, applied)


@dataclass(frozen=True)
class _WrittenNeighbors:
    """The neighbor table with its recall, and the kind of the index."""

    neighbors: NeighborResult
    index_kind: str


def _write_neighbors(
    plan: _Plan, rows: _WrittenRows, writer: BankWriter, clock: _Clock, progress: Progress
) -> _WrittenNeighbors:
    """Write the neighbor table and the index."""
    with clock.time("neighbors"):
        neighbors = _find_neighbors(rows.stored, rows.usable, plan.neighbors, plan.config, progress)
    writer.write_neighbors(neighbors.table)
    index_kind = "none"
    if plan.neighbors.k and rows.usable.any():
        with clock.time("index"), progress.step("build index"):
            with rows.stored.streamed() as streamed_rows:
                index_kind, index = build_index(streamed_rows, rows.usable)
            writer.write_index(index)
            del index
    rows.stored.release()
    return _WrittenNeighbors(neighbors, index_kind)


def _write_map(
    plan: _Plan, rows: _WrittenRows, table: _WrittenNeighbors, writer: BankWriter, clock: _Clock, progress: Progress
) -> TokenMap | None:
    """Write the map of the tokens, if the config asks for one."""
    if not plan.config.map.make:
        return None
    with clock.time("map"):
        options = LayoutOptions(plan.config.map.seed)
        token_map = lay_out(rows.stored.float32, rows.usable, table.neighbors.table, options, progress)
    rows.stored.release()
    writer.write_map(token_map.xy)
    return token_map


def _facts(
    plan: _Plan, vectors: SourceVectors, rows: _WrittenRows, table: _WrittenNeighbors, clock: _Clock
) -> BankFacts:
    """The content of the manifest, except for the format, the id and the files."""
    config, source = plan.config, plan.source
    return BankFacts(
        costbank=costbank.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        reproducible=vectors.reproducible and table.neighbors.method != "reduced",
        source=config.source,
        config=semantic_config(config),
        run=config.model_dump(mode="json"),
        facts=vectors.facts | ({"transforms": rows.transforms} if rows.transforms else {}),
        inputs=[asdict(file) for file in vectors.inputs()],
        libraries=_versions(("faiss-cpu", *source.libraries, *source.tokenizer.libraries)),
        seconds=clock.seconds,
        tokenizer=_tokenizer_facts(source.tokenizer),
        vectors=VectorFacts(vocab=source.shape[0], dim=plan.dim, dtype=config.storage.dtype),
        status=rows.vocab.status_counts(),
        neighbors=_neighbor_facts(table.neighbors),
        index=IndexFacts(kind=table.index_kind, rows=int(rows.usable.sum())),
    )


def _reproducible_sums(config: BuildConfig) -> AbstractContextManager[object]:
    """Limit BLAS to one thread while transforms are fitted: rounding depends on how threads divide a sum."""
    if all(transform == "center" for transform in config.transforms):
        return nullcontext()
    return require("threadpoolctl", "build").threadpool_limits(1)


class _UnitRows:
    """Makes unit rows from raw rows, and measures each raw row.

    Attributes:
        norms: Euclidean lengths of the raw rows.
        to_unused: cosines of the raw rows to the mean of the rows of ids that no text uses; NaN without such rows.
        usable: whether a row has a direction.
    """

    def __init__(self, vectors: SourceVectors, source: SourcePlan, transform: Affine) -> None:
        self._vectors, self._transform = vectors, transform
        vocab_size = source.shape[0]
        self.norms = np.zeros(vocab_size, np.float32)
        self.to_unused = np.full(vocab_size, np.nan, np.float32)
        self.usable = np.zeros(vocab_size, bool)

    def unit_blocks(self, advance: Any) -> Iterator[Float32[np.ndarray, "rows dim"]]:
        start = 0
        for block in self._vectors.blocks:
            part = slice(start, start + len(block))
            unit, norms = normalize(block)
            self._check(norms, start)
            self.norms[part] = norms
            self._compare(unit, part)
            if self._transform.changes:
                unit, norms = normalize(self._transform(block, norms > 0))
            self.usable[part] = norms > 0
            yield unit
            advance(len(block))
            start += len(block)

    def _check(self, norms: np.ndarray, start: int) -> None:
        if not np.isfinite(norms).all():
            row = start + int(np.flatnonzero(~np.isfinite(norms))[0])
            token = self._vectors.vocab.display(row)
            raise InputError(
                f"the vector of token {row:,} {token!r}, from {self._vectors.origin}, has NaN, infinity or a number "
                "too large for float32",
                "use another file, or repair this vector",
            )

    def _compare(self, unit: np.ndarray, part: slice) -> None:
        mean = self._vectors.unused_mean
        if mean is not None:
            # einsum does not use BLAS, whose threads would spin between blocks and keep cores from other work.
            self.to_unused[part] = np.einsum("rd,d->r", unit, mean / np.linalg.norm(mean))


def _neighbors_per_token(config: BuildConfig, source: SourcePlan) -> int:
    """The setting `neighbors.k`; by default 64, or the number of other tokens if that is smaller."""
    others = min(source.tokenizer.vocab.size, source.shape[0]) - 1
    k = config.neighbors.k
    if k is not None and k > others:
        raise UsageError(
            f"neighbors.k is {k:,}, but there are only {others:,} other tokens in this vocabulary",
            f"give at most {others:,}",
        )
    return max(1, min(_DEFAULT_K, others)) if k is None else k


def _check_space(config: BuildConfig, vocab_size: int, dim: int) -> None:
    """Check that the disk has space for the vectors, the index, the neighbor table and the tokens."""
    row_bytes = dim * (ELEMENT_TYPES[config.storage.dtype].dtype.itemsize + (4 if config.neighbors.k else 0))
    bank_bytes = vocab_size * (row_bytes + 8 * (config.neighbors.k or 0) + 64)
    directory = config.store.absolute()
    while not directory.exists():
        directory = directory.parent
    free_bytes = disk_usage(directory).free
    if bank_bytes > free_bytes:
        raise StorageError(
            f"the bank needs about {bank_bytes / 1e9:.1f} GB, but {directory} has only {free_bytes / 1e9:.1f} GB free",
            "free some space, give another --store, or --set storage.dtype=F16",
        )


def _find_neighbors(
    stored: MappedTensor, usable: np.ndarray, plan: NeighborPlan, config: BuildConfig, progress: Progress
) -> NeighborResult:
    if not plan.k:
        return NeighborResult(NeighborTable.empty(len(usable), 0), "none", 0)
    with progress.step("find neighbors", int(usable.sum()), "rows") as step, stored.streamed() as rows:
        return find_neighbors(rows, usable, plan, config.neighbors.min_recall, step.advance, progress.note)


def _neighbor_facts(neighbors: NeighborResult) -> NeighborFacts:
    facts = {name: value for name, value in asdict(neighbors).items() if name != "table"}
    return NeighborFacts(k=neighbors.table.k, exact=neighbors.method in ("exact", "none"), **facts)


def _tokenizer_facts(tokenizer: Tokenizer) -> TokenizerFacts:
    return TokenizerFacts(
        kind=tokenizer.kind, file=tokenizer.file, sha256=tokenizer.sha256, fingerprint=tokenizer.vocab.fingerprint
    )


def _card_examples(vocab: Vocab, table: NeighborTable) -> list[CardExample]:
    return [(vocab.token(token), [vocab.token(i) for i in nearest]) for token, nearest in example_tokens(vocab, table)]


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in dict.fromkeys(distributions):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions
