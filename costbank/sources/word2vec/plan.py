"""Word2Vec vectors (Mikolov et al. 2013) of a corpus, trained by gensim on token ids.

gensim reads Python lists, because its `corpus_file=` reader drops and repeats text (measured on gensim 4.4). It
silently truncates lists of more than 10,000 tokens, so longer documents are split, and the number of tokens that gensim
trained on is compared with the number of tokens in the corpus.

gensim's words are the ids as text. With integers, gensim would confuse words with row numbers when it looks up
counts, and would sample its noise from the wrong distribution.
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

_MAX_SENTENCE_TOKENS = 10_000
_REPORT_TOKENS = 50_000


def plan(config: Word2VecBuild) -> SourcePlan:
    """Check the corpus, the tokenizer and the settings. Ids that occur fewer than `min_count` times get no vector.

    Raises:
        UsageError: no corpus or no tokenizer is named, or the settings disable both kinds of training targets.
        InputError, InputNotFoundError: a file cannot be read.
        MissingExtraError: gensim is not installed.
    """
    require("gensim", "build")
    if not config.word2vec.negative and not config.word2vec.hs:
        raise UsageError(
            "word2vec.negative=0 and word2vec.hs=false together leave no training target",
            "set word2vec.negative=5 or word2vec.hs=true",
        )
    corpus = plan_corpus(config)
    return SourcePlan(
        corpus.tokenizer,
        (corpus.tokenizer.vocab.size, config.word2vec.dim),
        lambda progress: train_vectors(corpus, progress),
        ("gensim", "numpy", "scipy"),
        "Tokens are near each other if they occur in the same contexts of the corpus: words that can replace each "
        "other, and words on the same subject.",
    )


def train_vectors(plan: CorpusPlan[Word2VecBuild], progress: Progress) -> SourceVectors:
    """Encode the corpus, unless it is in the cache, and train.

    Raises:
        CorpusError: the text cannot be read, or has fewer than two ids to train on.
        EngineError: workers died again and again.
    """
    config, settings = plan.config, plan.config.word2vec
    with plan.hold_cache():
        with plan.encode(settings.min_count, progress) as learned:
            corpus, counts = learned.encoded, learned.counts
        model, trained_tokens = _train(corpus, counts, config, progress)
        corpus.refuse_changed()
    rows = np.zeros((corpus.vocab_size, settings.dim), np.float32)
    rows[list(map(int, model.wv.index_to_key))] = model.wv.vectors
    facts = learned.facts | {
        "expected_tokens": corpus.tokens * settings.epochs,
        "trained_tokens": trained_tokens,
        "trained_ids": len(model.wv),
    }
    return SourceVectors(
        plan.tokenizer.vocab.with_counts(counts),
        in_blocks(rows),
        facts,
        lambda: learned.inputs,
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
    model.build_vocab_from_freq(frequencies, corpus_count=corpus.sentence_count(_MAX_SENTENCE_TOKENS))
    expected = corpus.tokens * settings.epochs
    with progress.step("train Word2Vec", expected, "tokens") as step:
        feed = _Feed(corpus, words, step)
        _, trained_tokens = model.train(
            feed, total_examples=model.corpus_count, total_words=corpus.tokens, epochs=settings.epochs
        )
    if feed.failure:
        raise feed.failure
    if trained_tokens != expected:
        raise RuntimeError(
            f"gensim trained on {trained_tokens:,} tokens instead of {expected:,}; its vectors are discarded"
        )
    return model, trained_tokens


class _Feed:
    """The sentences that gensim's producer thread reads, once per epoch.

    gensim would wait forever after an exception in that thread, so the exception is stored for the main thread.
    """

    def __init__(self, corpus: EncodedCorpus, words: Shaped[np.ndarray, "vocab"], step: Step) -> None:
        self._corpus, self._words, self._step = corpus, words, step
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[list[str]]:
        unreported = 0
        try:
            for sentence in self._corpus.sentences(_MAX_SENTENCE_TOKENS, self._words):
                yield sentence
                unreported += len(sentence)
                if unreported >= _REPORT_TOKENS:
                    self._step.advance(unreported)
                    unreported = 0
            self._step.advance(unreported)
        except Exception as error:
            self.failure = error
