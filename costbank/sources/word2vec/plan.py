"""Vectors from a corpus by Word2Vec (Mikolov et al. 2013), trained by gensim over token ids.

gensim reads Python lists here, not `corpus_file=`: that reader drops and repeats text (measured on gensim 4.4). Lists
longer than 10,000 tokens would be cut short in silence, so longer documents are cut into parts first, and the number of
tokens that gensim took is held against the number that it was given.

gensim's words here are the ids as text. With integers for words it would take row numbers for words where it looks up
counts, and draw its noise from the wrong distribution.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from costbank.corpus import EncodedCorpus
from costbank.errors import UsageError, require
from costbank.progress import Progress, Step
from costbank.sources.base import SourcePlan, SourceVectors, in_blocks
from costbank.sources.corpora import CorpusPlan, plan_corpus
from costbank.sources.word2vec.settings import Word2VecBuild

__all__ = ["plan", "train_vectors"]

_MOST_SENTENCE_TOKENS = 10_000
_REPORT_TOKENS = 50_000


def plan(config: Word2VecBuild) -> SourcePlan:
    """Train on ids, so that the result lines up with the tokenizer; ids too rare to train on get no vector.

    Raises:
        UsageError: there is no text, or no tokenizer, or gensim is not installed.
        InputError, InputNotFoundError: a file cannot be read.
    """
    require("gensim", "build")
    if not config.word2vec.negative and not config.word2vec.hs:
        raise UsageError(
            "with word2vec.negative=0 and word2vec.hs=false there is nothing to train against",
            "give word2vec.negative=5, or word2vec.hs=true",
        )
    corpus = plan_corpus(config)
    return SourcePlan(
        corpus.tokenizer,
        (corpus.tokenizer.vocab.size, config.word2vec.dim),
        lambda progress: train_vectors(corpus, progress),
        ("gensim", "numpy", "scipy"),
        "Tokens are near each other that occur in the same contexts of the corpus: words that can stand for each "
        "other, and words of one subject.",
    )


def train_vectors(plan: CorpusPlan[Word2VecBuild], progress: Progress) -> SourceVectors:
    """Encode the corpus where that has not been done, and train.

    Raises:
        CorpusError: the text cannot be read, or holds fewer than two ids to train.
    """
    config, settings = plan.config, plan.config.word2vec
    with plan.learnt(settings.min_count, progress) as learnt:
        corpus, counts = learnt.encoded, learnt.counts
    model, taken = _train(corpus, counts, config, progress)
    corpus.refuse_changed()
    rows = np.zeros((corpus.vocab_size, settings.dim), np.float32)
    rows[list(map(int, model.wv.index_to_key))] = model.wv.vectors
    facts = learnt.facts | {
        "expected_tokens": corpus.tokens * settings.epochs,
        "trained_tokens": taken,
        "trained_ids": len(model.wv),
    }
    return SourceVectors(
        plan.tokenizer.vocab.with_counts(counts),
        in_blocks(rows),
        facts,
        lambda: learnt.inputs,
        settings.workers == 1,
        "the vectors that gensim trained",
    )


def _train(
    corpus: EncodedCorpus, counts: Int64[np.ndarray, "vocab"], config: Word2VecBuild, progress: Progress
) -> tuple[Any, int]:
    settings = config.word2vec
    gensim_word2vec = require("gensim.models.word2vec", "build")
    model = gensim_word2vec.Word2Vec(
        vector_size=settings.dim,
        sg=int(settings.sg),
        hs=int(settings.hs),
        window=settings.window,
        negative=settings.negative,
        epochs=settings.epochs,
        sample=settings.sample,
        min_count=settings.min_count,
        seed=settings.seed,
        workers=settings.workers,
    )
    words = np.array([str(token_id) for token_id in range(corpus.vocab_size)], object)
    frequencies = {word: count for word, count in zip(words.tolist(), counts.tolist(), strict=True) if count}
    model.build_vocab_from_freq(frequencies, corpus_count=corpus.sentence_count(_MOST_SENTENCE_TOKENS))
    expected = corpus.tokens * settings.epochs
    with progress.step("train Word2Vec", expected, "tokens") as step:
        feed = _Feed(corpus, words, step)
        _, taken = model.train(
            feed, total_examples=model.corpus_count, total_words=corpus.tokens, epochs=settings.epochs
        )
    if feed.failure:
        raise feed.failure
    if taken != expected:
        raise RuntimeError(f"gensim trained {taken:,} tokens where {expected:,} were given; the vectors are not kept")
    return model, taken


class _Feed:
    """The corpus as gensim's producer thread reads it, once an epoch.

    An exception in that thread would leave gensim waiting for ever, so it is kept for the main thread.
    """

    def __init__(self, corpus: EncodedCorpus, words: Shaped[np.ndarray, "vocab"], step: Step) -> None:
        self._corpus, self._words, self._step = corpus, words, step
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[list[str]]:
        unreported = 0
        try:
            for sentence in self._corpus.sentences(_MOST_SENTENCE_TOKENS, self._words):
                yield sentence
                unreported += len(sentence)
                if unreported >= _REPORT_TOKENS:
                    self._step.advance(unreported)
                    unreported = 0
            self._step.advance(unreported)
        except Exception as error:
            self.failure = error
