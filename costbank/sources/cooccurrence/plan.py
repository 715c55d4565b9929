"""Vectors from co-occurrence counts of a corpus: PPMI and truncated SVD (Levy, Goldberg & Dagan 2015).

The rows are U·Σ^p. The result is deterministic: counts are integers, and the factorization has a seeded start, a fixed
order of sums and fixed signs.
"""

import numpy as np

from costbank.errors import CorpusError, require
from costbank.progress import Progress
from costbank.sources.base import SourcePlan, SourceVectors, in_blocks
from costbank.sources.cooccurrence.contexts import context_set
from costbank.sources.cooccurrence.counting import pair_weights
from costbank.sources.cooccurrence.pair_counts import PairCounts, count_pairs
from costbank.sources.cooccurrence.settings import CooccurrenceBuild
from costbank.sources.corpora import CorpusPlan, LearnedCorpus, plan_corpus

__all__ = ["factorized_vectors", "plan"]


def plan(config: CooccurrenceBuild) -> SourcePlan:
    """Check the corpus and the tokenizer. Ids that occur fewer than `min_count` times get no vector.

    Raises:
        UsageError: no corpus or no tokenizer is named.
        InputError, InputNotFoundError: a file cannot be read.
        MissingExtraError: SciPy is not installed.
    """
    require("scipy.sparse", "build")
    corpus = plan_corpus(config)
    return SourcePlan(
        corpus.tokenizer,
        (corpus.tokenizer.vocab.size, config.cooccurrence.dim),
        lambda progress: factorized_vectors(corpus, progress),
        ("numpy", "scipy"),
        "Tokens are near each other if they occur in the same contexts of the corpus: words that can replace each "
        "other, and words on the same subject. The vectors depend only on counts, so the same corpus gives the same "
        "bank.",
    )


def factorized_vectors(plan: CorpusPlan[CooccurrenceBuild], progress: Progress) -> SourceVectors:
    """Encode and count the corpus, unless the cache has the results, and factorize the counts.

    Raises:
        CorpusError: the text cannot be read or is too short, or its matrix exceeds the memory.
        EngineError: workers died again and again.
    """
    config, settings = plan.config, plan.config.cooccurrence
    with plan.hold_cache():
        with plan.encode(settings.min_count, progress) as learned:
            weights = pair_weights(settings.window, settings.weighting == "flat")
            contexts = context_set(
                weights, settings.side, settings.positions, settings.ngram, settings.ngram_buckets,
                plan.tokenizer.vocab.size,
            )  # fmt: skip
            pairs = count_pairs(
                learned.encoded, weights, learned.engine, config.cache.absolute(), progress, contexts=contexts
            )
            memory = learned.engine.machine_memory
        rows, facts = _vectors(pairs, learned, config, memory, progress)
    return SourceVectors(
        plan.tokenizer.vocab.with_counts(learned.counts),
        in_blocks(rows),
        learned.facts | facts,
        lambda: learned.inputs,
        True,
        "the factorization of the counts",
    )


def _vectors(
    pairs: PairCounts, learned: LearnedCorpus, config: CooccurrenceBuild, memory: int, progress: Progress
) -> tuple[np.ndarray, dict]:
    from costbank.sources.cooccurrence.ppmi import PpmiOptions, most_frequent, pair_marginals, plan_ppmi
    from costbank.sources.cooccurrence.truncated_svd import factor_bytes, truncated_svd

    settings = config.cooccurrence
    frequent = learned.counts >= settings.min_count
    options = PpmiOptions(settings.smoothing, settings.shift, settings.cap, settings.min_pair)
    if not pairs.pairs:
        raise CorpusError(
            "no window of the corpus has two tokens, because each document is a single token",
            "check corpus.documents and corpus.separator, or use longer text",
        )
    with progress.step("weigh pairs", 3 * pairs.pairs, "pairs") as step:
        marginals = pair_marginals(pairs, len(frequent), pairs.packing.contexts, step.advance)
        sums = np.where(frequent, learned.counts, 0) if marginals.is_symmetric else marginals.columns
        columns = sums > 0 if settings.contexts is None else most_frequent(sums, settings.contexts)
        planned = plan_ppmi(pairs, marginals, frequent, columns, options, step.advance)
        needed = planned.matrix_bytes + factor_bytes(planned.shape, settings.dim)
        if needed > memory:
            raise CorpusError(
                f"factorizing the matrix of {planned.stored:,} cells takes {needed / 1e9:.1f} GB, but the memory limit "
                f"is {memory / 1e9:.1f} GB",
                "increase --memory or cooccurrence.min_pair, or reduce cooccurrence.contexts, then run the command "
                "again; finished counts are reused",
            )
        matrix = planned.make(step.advance)
    with progress.step("factorize") as step:
        svd = truncated_svd(matrix, settings.dim, settings.seed, advance=step.advance)
    rows = np.zeros((len(frequent), settings.dim), np.float32)
    rows[frequent] = svd.left * (svd.values**settings.power).astype(np.float32)
    rank = int((svd.values > 0).sum())
    if rank < settings.dim:
        progress.note(
            f"the counts have rank {rank:,}; the other {settings.dim - rank:,} of {settings.dim:,} dimensions are zero"
        )
    return rows, {
        "counts_sha256": pairs.digest,
        "counted_pairs": pairs.pairs,
        "matrix_cells": planned.stored,
        "singular_values": [float(f"{svd.values[i]:.6g}") for i in (0, settings.dim - 1)],
        "residual": float(f"{svd.residual:.2g}"),
    }
