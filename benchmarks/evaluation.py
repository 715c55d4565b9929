"""The quality of an English bank, measured with the word pairs and analogies that gensim contains."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from costbank.analysis.evaluation import Analogies, WordSimilarity, analogies, word_similarity
from costbank.bank import Bank

__all__ = ["EnglishQuality", "coverage", "english_quality", "judgments", "questions"]


@dataclass(frozen=True)
class EnglishQuality:
    """Agreement with WordSim-353 (Finkelstein et al. 2002) and SimLex-999 (Hill et al. 2015), and the share of correct
    answers to the analogies of Mikolov et al. (2013)."""

    wordsim: WordSimilarity
    simlex: WordSimilarity
    analogies: Analogies


def english_quality(bank: Bank) -> EnglishQuality:
    """All three measurements."""
    return EnglishQuality(
        word_similarity(bank, judgments("wordsim353.tsv")),
        word_similarity(bank, judgments("simlex999.txt")),
        analogies(bank, questions()),
    )


def judgments(file: str) -> list[tuple[str, str, float]]:
    """Two words and a score per line, separated by tabs. Titles and comments are skipped."""
    rows = [line.split("\t") for line in _lines(file) if line and not line.startswith("#")]
    return [(row[0], row[1], float(row[2])) for row in rows if _is_number(row[2])]


def questions() -> list[tuple[str, str, str, str]]:
    """Four words per line of `questions-words.txt`. Lines that begin with a colon are titles."""
    rows = [line.split() for line in _lines("questions-words.txt") if line and not line.startswith(":")]
    return [(a, b, c, d) for a, b, c, d in rows]


def coverage(bank: Bank) -> float:
    """The share of ids with a vector, among those that a text can contain."""
    status = bank.manifest.status
    usable = status["ok"] + status["byte"]
    return usable / (usable + status["unseen"])


def _lines(file: str) -> list[str]:
    spec = find_spec("gensim")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "test" / "test_data" / file).read_text("utf-8").splitlines()


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
