"""One config in, one bank out: source → transforms → unit rows → neighbors and index → bank."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from shutil import disk_usage
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

import costbank
from costbank.bank import Bank, BankWriter
from costbank.bank.card import CardExample, write_card
from costbank.config import BuildConfig, semantic_config
from costbank.element_types import ELEMENT_TYPES
from costbank.errors import InputError, StorageError, UsageError, require
from costbank.neighbors import FoundNeighbors, NeighborPlan, NeighborTable, build_index, find_neighbors, plan_neighbors
from costbank.progress import Progress, QuietProgress
from costbank.sources import SourcePlan, SourceVectors, plan_source
from costbank.tensorfile import MappedTensor
from costbank.threads import prefetch
from costbank.tokenizers import Tokenizer
from costbank.transforms import Affine, fit_transforms, normalize, output_dim
from costbank.vocab import TokenStatus, Vocab

__all__ = ["build"]

_DEFAULT_K = 64
_CARD_TOKENS = 12
_CARD_NEIGHBORS = 5
_TOLD_SECONDS = 20
_LEAST_VECTORS = 2


@dataclass
class _Clock:
    """Seconds that each step took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - began, 3)


def build(config: BuildConfig, progress: Progress | None = None) -> Bank:
    """Build the bank that `config` asks for and open it.

    The same inputs and config give the same id; an existing bank is not rewritten. Nothing is left behind when
    the build fails or is interrupted.

    Raises:
        CostbankError: an input, a setting or the store does not allow it; as far as can be known, before any work.
    """
    progress = progress or QuietProgress()
    source = plan_source(config)
    vocab_size, raw_dim = source.shape
    dim = output_dim(config.transforms, raw_dim)
    config = _resolved(config, source)
    if config.neighbors.k:
        require("faiss", "build")
    with _same_on_any_number_of_cores(config):
        pass  # its library is there
    _check_space(config, vocab_size, dim)
    near = plan_neighbors(vocab_size, dim, config.neighbors.k or 0, config.neighbors.method)
    config = config.model_copy(update={"neighbors": config.neighbors.model_copy(update={"method": near.method})})
    if near.k and near.seconds > _TOLD_SECONDS:
        progress.note(f"{near}; training with dense costs needs no table: --set neighbors.k=0 leaves it out")
    clock = _Clock()
    with BankWriter(config.store / config.bank_name) as writer:
        with clock.time("source"):
            made = source.make(progress)
        transform, applied = Affine(), []
        with _same_on_any_number_of_cores(config):
            if config.transforms:
                with clock.time("transforms"), progress.step("fit transforms", vocab_size, "rows") as step:
                    transform, applied = fit_transforms(config.transforms, made.blocks, step.advance)
            rows = _Rows(made, source, transform)
            with clock.time("vectors"), progress.step("write vectors", vocab_size, "rows") as step:
                stored = writer.write_vectors(
                    (vocab_size, dim), config.vectors.dtype, prefetch(rows.unit_blocks(step.advance))
                )
        usable = rows.usable
        if usable.sum() < _LEAST_VECTORS:
            raise InputError(
                f"{int(usable.sum())} of {vocab_size:,} tokens have a vector; a bank needs {_LEAST_VECTORS}",
                "see that the source has rows for this tokenizer's tokens, and that transforms leave something of them",
            )
        vocab = made.vocab.with_evidence(usable)
        writer.write_tokens(vocab)
        writer.write_rows(rows.norms, rows.to_unused)
        with clock.time("neighbors"):
            found = _find(stored, usable, near, config, progress)
        writer.write_neighbors(found.table)
        index_kind = "none"
        if near.k and usable.any():
            with clock.time("index"), progress.step("build index"):
                with stored.streamed() as streamed_rows:
                    index_kind, index = build_index(streamed_rows, usable)
                writer.write_index(index)
                del index
        stored.release()
        facts = {
            "costbank": costbank.__version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "reproducible": made.reproducible and found.method != "reduced",
            "source": config.source,
            "config": semantic_config(config),
            "run": config.model_dump(mode="json"),
            "facts": made.facts | ({"transforms": applied} if applied else {}),
            "inputs": [asdict(file) for file in made.inputs()],
            "libraries": _versions(("faiss-cpu", *source.libraries, *source.tokenizer.libraries)),
            "seconds": clock.seconds,
            "tokenizer": _tokenizer_facts(source.tokenizer),
            "vectors": {"vocab": vocab_size, "dim": dim, "dtype": config.vectors.dtype},
            "status": vocab.status_counts(),
            "neighbors": _neighbor_facts(found),
            "index": {"kind": index_kind, "rows": int(usable.sum())},
        }
        examples = _examples(vocab, found.table)
        place = writer.publish(facts, lambda manifest: write_card(manifest, examples, source.advice))
    return Bank(place)


def _same_on_any_number_of_cores(config: BuildConfig) -> AbstractContextManager[object]:
    """Sums over rows come out differently by how many threads a BLAS divides them among."""
    if all(transform == "center" for transform in config.transforms):
        return nullcontext()
    return require("threadpoolctl", "build").threadpool_limits(1)


class _Rows:
    """Raw rows on their way to unit rows, and what is measured of each in passing.

    Attributes:
        norms: Euclidean length of the raw row.
        to_unused: cosine of the raw row to the mean of rows that no text uses; NaN where there are none.
        usable: whether the row has a direction.
    """

    def __init__(self, made: SourceVectors, source: SourcePlan, transform: Affine) -> None:
        self._made, self._source, self._transform = made, source, transform
        vocab_size = source.shape[0]
        self.norms = np.zeros(vocab_size, np.float32)
        self.to_unused = np.full(vocab_size, np.nan, np.float32)
        self.usable: Bool[np.ndarray, vocab] = np.zeros(vocab_size, bool)

    def unit_blocks(self, advance: Any) -> Iterator[Float32[np.ndarray, "rows dim"]]:
        start = 0
        for block in self._made.blocks:
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
            token = self._made.vocab.display(row)
            raise InputError(
                f"the vector of token {row:,} {token!r}, from {self._made.origin}, holds NaN, infinity or numbers too "
                "large for float32",
                "the file is broken: take another, or repair that vector",
            )

    def _compare(self, unit: np.ndarray, part: slice) -> None:
        mean = self._made.unused_mean
        if mean is not None:
            # Not by a BLAS, whose threads would wait for the next block by spinning, and take the cores from the rest.
            self.to_unused[part] = np.einsum("rd,d->r", unit, mean / np.linalg.norm(mean))


def _resolved(config: BuildConfig, source: SourcePlan) -> BuildConfig:
    """The config with the number of neighbors that the vocabulary allows."""
    most = min(source.tokenizer.vocab.size, source.shape[0]) - 1
    k = config.neighbors.k
    if k is not None and k > most:
        raise UsageError(
            f"neighbors.k is {k:,}, and a token of this vocabulary has {most:,} others", f"give {most:,} at most"
        )
    k = max(1, min(_DEFAULT_K, most)) if k is None else k
    return config.model_copy(update={"neighbors": config.neighbors.model_copy(update={"k": k})})


def _check_space(config: BuildConfig, vocab_size: int, dim: int) -> None:
    row_bytes = dim * (ELEMENT_TYPES[config.vectors.dtype].dtype.itemsize + (4 if config.neighbors.k else 0))
    needed = vocab_size * (row_bytes + 8 * (config.neighbors.k or 0) + 64)
    place = config.store.absolute()
    while not place.exists():
        place = place.parent
    free = disk_usage(place).free
    if needed > free:
        raise StorageError(
            f"the bank takes about {needed / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free",
            "free some space, choose another --store, or --set vectors.dtype=F16",
        )


def _find(
    stored: MappedTensor, usable: np.ndarray, plan: NeighborPlan, config: BuildConfig, progress: Progress
) -> FoundNeighbors:
    if not plan.k:
        return FoundNeighbors(NeighborTable.empty(len(usable), 0), "none", 0)
    with progress.step("find neighbors", int(usable.sum()), "rows") as step, stored.streamed() as rows:
        return find_neighbors(rows, usable, plan, config.neighbors.min_recall, step.advance, progress.note)


def _neighbor_facts(found: FoundNeighbors) -> dict[str, Any]:
    facts = {name: value for name, value in asdict(found).items() if name != "table"}
    return {"k": found.table.k, "exact": found.method in ("exact", "none"), **facts}


def _tokenizer_facts(tokenizer: Tokenizer) -> dict[str, str]:
    return {
        "kind": tokenizer.kind,
        "file": tokenizer.file,
        "sha256": tokenizer.sha256,
        "fingerprint": tokenizer.vocab.fingerprint,
    }


def _examples(vocab: Vocab, table: NeighborTable) -> list[CardExample]:
    """Whole words of some length that have neighbors: the most frequent, or where counts are unknown, the first."""
    if not table.k:
        return []
    frequent = np.argsort(-vocab.counts, kind="stable")
    examples = []
    for token_id in frequent[: 50 * _CARD_TOKENS].tolist():
        token = vocab.token(token_id)
        word = token.startswith(b" ") and len(token) > 5 and token[1:].isalpha()
        if word and vocab.status[token_id] == TokenStatus.OK and table.ids[token_id, 0] >= 0:
            nearest = table.ids[token_id, :_CARD_NEIGHBORS]
            examples.append((token, [vocab.token(int(i)) for i in nearest if i >= 0]))
            if len(examples) == _CARD_TOKENS:
                break
    return examples


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in dict.fromkeys(distributions):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
