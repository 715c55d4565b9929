"""All tests of a bank on lists of words, for words of one token and also for words of several pieces."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from costbank.analysis.evaluation import answers_to, similarity_of_pairs
from costbank.analysis.groups import group_agreement
from costbank.analysis.wordlists import Judgment, Question
from costbank.analysis.words import WordRows
from costbank.bank import Bank
from costbank.errors import require
from costbank.progress import Progress, QuietProgress

__all__ = ["Score", "WordTest", "word_tests"]


@dataclass(frozen=True)
class Score:
    """A value over `used` of the `given` pairs, questions or words; None if too few can be used."""

    value: float | None
    used: int
    given: int


@dataclass(frozen=True)
class WordTest:
    """The result of one test.

    Attributes:
        test: the name of the list.
        measure: `spearman`, `accuracy`, `precision` or `auc`.
        one_token: the score of words that are one token each.
        with_pieces: the score if words of several pieces are used, too.
    """

    test: str
    measure: str
    one_token: Score
    with_pieces: Score


def word_tests(
    bank: Bank,
    judgments: Mapping[str, Sequence[Judgment]],
    questions: Mapping[str, Sequence[Question]],
    groups: Mapping[str, Sequence[Sequence[str]]],
    progress: Progress | None = None,
) -> list[WordTest]:
    """The scores of a bank on lists of words, by the names of the lists.

    Args:
        bank: the bank to test.
        judgments: two words and their similarity, as in `costbank.analysis.evaluation.word_similarity`.
        questions: four words, as in `costbank.analysis.evaluation.analogies`.
        groups: words of similar meaning, as in `costbank.analysis.groups.group_agreement`.
        progress: receives the number of words that answers were compared with.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    require("scipy.stats", "build")
    progress = progress or QuietProgress()
    tests = []
    for name, pairs in judgments.items():
        rhos = [similarity_of_pairs(WordRows(bank, with_pieces), pairs) for with_pieces in (False, True)]
        tests.append(WordTest(name, "spearman", *(_score(r.rho, r.pairs, r.pairs_given) for r in rhos)))
    for name, four in questions.items():
        answers = [answers_to(WordRows(bank), four, progress=progress)]
        if answers[0].questions == len(four):  # no word needs pieces
            answers *= 2
        else:
            answers.append(answers_to(WordRows(bank, with_pieces=True), four, progress=progress))
        tests.append(WordTest(name, "accuracy", *(_score(r.accuracy, r.questions, r.questions_given) for r in answers)))
    for name, own in groups.items():
        agreements = [group_agreement(bank, own, with_pieces, progress) for with_pieces in (False, True)]
        tests += [
            WordTest(name, "precision", *(_score(r.precision, r.words, r.words_given) for r in agreements)),
            WordTest(name, "auc", *(_score(r.auc, r.words, r.words_given) for r in agreements)),
        ]
    return tests


def _score(value: float, used: int, given: int) -> Score:
    return Score(None if math.isnan(value) else value, used, given)
