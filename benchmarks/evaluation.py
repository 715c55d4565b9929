"""The quality of an English bank, measured with the word pairs and analogies that gensim contains."""

from dataclasses import dataclass

from costbank.analysis.evaluation import Analogies, WordSimilarity, analogies, word_similarity
from costbank.analysis.wordlists import english_judgments, english_questions
from costbank.bank import Bank

__all__ = ["EnglishQuality", "coverage", "english_quality"]


@dataclass(frozen=True)
class EnglishQuality:
    """Agreement with WordSim-353 (Finkelstein et al. 2002) and SimLex-999 (Hill et al. 2015), and the share of correct
    answers to the analogies of Mikolov et al. (2013)."""

    wordsim: WordSimilarity
    simlex: WordSimilarity
    analogies: Analogies


def english_quality(bank: Bank) -> EnglishQuality:
    """All three measurements."""
    judgments = english_judgments()
    return EnglishQuality(
        word_similarity(bank, judgments["WordSim-353"]),
        word_similarity(bank, judgments["SimLex-999"]),
        analogies(bank, english_questions()),
    )


def coverage(bank: Bank) -> float:
    """The share of ids with a vector, among those that a text can contain."""
    status = bank.manifest.status
    usable = status["ok"] + status["byte"]
    return usable / (usable + status["unseen"])
