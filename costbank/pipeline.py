"""One config in, one bank out: source → unit rows → neighbors and index → bank."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from shutil import disk_usage

import numpy as np

import costbank
from costbank.bank import Bank, BankWriter
from costbank.bank.card import CardExample, write_card
from costbank.config import BuildConfig, semantic_config
from costbank.errors import StorageError, UsageError, require
from costbank.neighbors import NeighborTable, build_index, exact_neighbors
from costbank.progress import Progress, QuietProgress
from costbank.sources import get_source
from costbank.tokenizers import Tokenizer, load_tokenizer
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

__all__ = ["build"]

_DEFAULT_K = 64
_CARD_TOKENS = 12
_CARD_NEIGHBORS = 5
_ELEMENT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


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

    The same inputs and config give a bank of the same id, which is then written once. Nothing is left behind when
    the build fails or is interrupted.

    Raises:
        CostbankError: an input, a setting or the store does not allow it; as far as can be known, before any work.
    """
    progress = progress or QuietProgress()
    source = get_source(config.source)
    require("faiss", "build")
    source.check(config)
    tokenizer = load_tokenizer(config.tokenizer, config.tokenizer_kind)
    config = _with_k(config, tokenizer)
    directory = config.store / config.bank_name
    _check_space(config, tokenizer, source.dim(config))
    clock = _Clock()
    with BankWriter(directory) as writer:
        with clock.time("source"):
            made = source.vectors(config, tokenizer, progress)
        with clock.time("vectors"):
            shape = (tokenizer.vocab.size, made.dim)
            stored = writer.write_vectors(shape, config.vectors.dtype, map(normalize, made.blocks))
            usable = np.concatenate([stored.data[i : i + 16_384].any(axis=1) for i in range(0, shape[0], 16_384)])
        writer.write_tokens(made.vocab)
        rows = stored.float32(slice(None))
        with clock.time("neighbors"), progress.step("find neighbors", int(usable.sum()), "rows") as step:
            table = exact_neighbors(rows, usable, config.neighbors.k or 1, step.advance)
        writer.write_neighbors(table)
        with clock.time("index"), progress.step("build index"):
            writer.write_index(build_index(rows, usable))
        facts = {
            "costbank": costbank.__version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "reproducible": made.reproducible,
            "source": config.source,
            "config": semantic_config(config),
            "run": config.model_dump(mode="json"),
            "facts": made.facts,
            "inputs": [asdict(file) for file in made.inputs],
            "libraries": _versions(("faiss-cpu", *source.libraries)),
            "seconds": clock.seconds,
            "tokenizer": {
                "kind": tokenizer.kind,
                "file": config.tokenizer.name,
                "sha256": tokenizer.sha256,
                "fingerprint": tokenizer.vocab.fingerprint,
            },
            "vectors": {"vocab": shape[0], "dim": shape[1], "dtype": config.vectors.dtype},
            "status": made.vocab.status_counts(),
            "neighbors": {"k": table.k, "exact": True, "recall": 1.0},
            "index": {"kind": "flat", "rows": int(usable.sum())},
        }
        examples = _examples(made.vocab, table)
        place = writer.publish(facts, lambda manifest: write_card(manifest, examples))
    return Bank(place)


def _with_k(config: BuildConfig, tokenizer: Tokenizer) -> BuildConfig:
    most = tokenizer.vocab.size - 1
    k = config.neighbors.k
    if k is not None and k > most:
        raise UsageError(
            f"neighbors.k is {k:,}, and a token of this vocabulary has {most:,} others", f"give {most:,} at most"
        )
    return config.model_copy(
        update={"neighbors": config.neighbors.model_copy(update={"k": k or max(1, min(_DEFAULT_K, most))})}
    )


def _check_space(config: BuildConfig, tokenizer: Tokenizer, dim: int) -> None:
    row_bytes = dim * (_ELEMENT_BYTES[config.vectors.dtype] + 4) + 8 * (config.neighbors.k or 1) + 64
    needed = tokenizer.vocab.size * row_bytes
    place = config.store.absolute()
    while not place.exists():
        place = place.parent
    free = disk_usage(place).free
    if needed > free:
        raise StorageError(
            f"the bank takes about {needed / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free",
            "free some space, choose another --store, or --set vectors.dtype=F16",
        )


def _examples(vocab: Vocab, table: NeighborTable) -> list[CardExample]:
    """Whole words of some length, from the most frequent down, that have neighbors."""
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
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
