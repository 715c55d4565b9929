"""Vectors from a corpus by counting: exact window counts, PPMI, truncated SVD (Levy, Goldberg & Dagan 2015).

The rows are U·Σ^p. Everything is deterministic: the counts are integers, and the factorization has a fixed start, sums
in a fixed order and fixed signs.
"""

import numpy as np

from costbank.errors import CorpusError, require
from costbank.progress import Progress
from costbank.sources.base import SourcePlan, SourceVectors, in_blocks
from costbank.sources.cooccurrence.counting import pair_weights
from costbank.sources.cooccurrence.pair_counts import PairCounts, count_pairs
from costbank.sources.cooccurrence.settings import CooccurrenceBuild
from costbank.sources.corpora import CorpusPlan, LearntCorpus, plan_corpus

__all__ = ["factorized_vectors", "plan"]


def plan(config: CooccurrenceBuild) -> SourcePlan:
    """Count on ids, so that the result lines up with the tokenizer; ids too rare to tell of get no vector.

    Raises:
        UsageError: there is no text, or no tokenizer, or SciPy is not installed.
        InputError, InputNotFoundError: a file cannot be read.
    """
    require("scipy.sparse", "build")
    corpus = plan_corpus(config)
    return SourcePlan(
        corpus.tokenizer,
        (corpus.tokenizer.vocab.size, config.cooccurrence.dim),
        lambda progress: factorized_vectors(corpus, progress),
        ("numpy", "scipy"),
        "Tokens are near each other that occur in the same contexts of the corpus: words that can stand for each "
        "other, and words of one subject. Every number follows from counts, so the same corpus gives the same bank.",
    )


def factorized_vectors(plan: CorpusPlan[CooccurrenceBuild], progress: Progress) -> SourceVectors:
    """Encode and count the corpus where that has not been done, and factorize.

    Raises:
        CorpusError: the text cannot be read, holds too little, or its matrix does not fit the memory.
        EngineError: workers died again and again.
    """
    config, settings = plan.config, plan.config.cooccurrence
    with plan.learnt(settings.min_count, progress) as learnt:
        weights = pair_weights(settings.window, settings.weighting == "flat")
        pairs = count_pairs(learnt.encoded, weights, learnt.engine, config.cache.absolute(), progress)
        memory = learnt.engine.machine_memory
    rows, facts = _vectors(pairs, learnt, config, memory, progress)
    return SourceVectors(
        plan.tokenizer.vocab.with_counts(learnt.counts),
        in_blocks(rows),
        learnt.facts | facts,
        lambda: learnt.inputs,
        True,
        "the factorization of the counts",
    )


def _vectors(
    pairs: PairCounts, learnt: LearntCorpus, config: CooccurrenceBuild, memory: int, progress: Progress
) -> tuple[np.ndarray, dict]:
    from costbank.sources.cooccurrence.ppmi import PpmiOptions, most_frequent, pair_marginals, plan_ppmi
    from costbank.sources.cooccurrence.truncated_svd import factor_bytes, truncated_svd

    settings = config.cooccurrence
    kept = learnt.counts >= settings.min_count
    contexts = kept if settings.contexts is None else most_frequent(np.where(kept, learnt.counts, 0), settings.contexts)
    options = PpmiOptions(settings.smoothing, settings.shift, settings.cap, settings.min_pair)
    if not pairs.pairs:
        raise CorpusError(
            "no window of the corpus brings two tokens together",
            "each document is a single token: see corpus.documents and corpus.separator, or give longer text",
        )
    with progress.step("weigh pairs", 3 * pairs.pairs, "pairs") as step:
        marginals = pair_marginals(pairs, len(kept), step.advance)
        planned = plan_ppmi(pairs, marginals, kept, contexts, options, step.advance)
        needed = planned.matrix_bytes + factor_bytes(planned.shape, settings.dim)
        if needed > memory:
            raise CorpusError(
                f"the matrix of {planned.stored:,} cells takes {needed / 1e9:.1f} GB to factorize, and "
                f"{memory / 1e9:.1f} GB may be used",
                "raise --memory, or cooccurrence.min_pair, or lower cooccurrence.contexts; what is counted is kept",
            )
        matrix = planned.make(step.advance)
    with progress.step("factorize") as step:
        found = truncated_svd(matrix, settings.dim, settings.seed, advance=step.advance)
    rows = np.zeros((len(kept), settings.dim), np.float32)
    rows[kept] = found.left * (found.values**settings.power).astype(np.float32)
    rank = int((found.values > 0).sum())
    if rank < settings.dim:
        progress.note(f"dimensions that the counts hold: {rank}; the other {settings.dim - rank} are zero")
    return rows, {
        "counts_sha256": pairs.digest,
        "counted_pairs": pairs.pairs,
        "matrix_cells": planned.stored,
        "singular_values": [float(f"{found.values[i]:.6g}") for i in (0, settings.dim - 1)],
        "residual": float(f"{found.residual:.2g}"),
    }
