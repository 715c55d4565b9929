"""Evaluation of banks with a few tokens, whose results are known."""

from pathlib import Path

import numpy as np
import pytest

from costbank.analysis.evaluation import Analogies, WordSimilarity, analogies, neighbor_overlap, word_similarity
from costbank.bank import Bank
from costbank.errors import InputError, UsageError
from tests.unit.small_bank import small_bank

ROYALS = {
    " king": (1, 0, 1),
    " queen": (0, 1, 1),
    " man": (1, 0, 0),
    " woman": (0, 1, 0),
    " apple": (-1, -1, 0),
    "queens": (0, 1, 1),
    "  queen": (0, 1, 1),
}


@pytest.fixture
def royals(tmp_path: Path) -> Bank:
    return small_bank(tmp_path, ROYALS)


def _on_a_circle(*degrees: float) -> dict[str, tuple[float, ...]]:
    return {f" t{i}": (np.cos(np.radians(d)), np.sin(np.radians(d))) for i, d in enumerate(degrees)}


def test_judgments_in_the_order_of_the_similarities_agree_fully(royals: Bank):
    judgments = [("king", "man", 7.0), ("king", "queen", 5.0), ("man", "woman", 2.0), ("king", "apple", 1.0)]
    assert word_similarity(royals, judgments) == WordSimilarity(1.0, 4, 4)
    reversed_scores = [(a, b, -score) for a, b, score in judgments]
    assert word_similarity(royals, reversed_scores).rho == -1.0


def test_pairs_that_are_no_whole_words_are_left_out_and_few_are_refused(royals: Bank):
    judgments = [("king", "man", 3.0), ("king", "woman", 2.0), ("King", "apple", 1.0), ("queens", "man", 9.0)]
    assert word_similarity(royals, judgments) == WordSimilarity(1.0, 3, 4)
    with pytest.raises(InputError, match="2 of 2 word pairs"):
        word_similarity(royals, judgments[:2])


def test_an_analogy_is_answered_by_the_nearest_word(royals: Bank):
    questions = [("man", "king", "woman", "queen"), ("man", "king", "woman", "apple")]
    assert analogies(royals, questions[:1]) == Analogies(1.0, 1, 1)
    assert analogies(royals, questions) == Analogies(0.5, 2, 2)


def test_only_words_are_answers(tmp_path: Path):
    """`queens` and `  queen` (two spaces) have the same row as ` queen`, and lower ids."""
    bank = small_bank(tmp_path, {token: ROYALS[token] for token in ["queens", "  queen", *list(ROYALS)[:5]]})
    assert np.array_equal(bank.vectors()[0], bank.vectors()[3])
    assert analogies(bank, [("Man", "king", "WOMAN", "queen")]).accuracy == 1


def test_the_words_of_the_question_are_no_answers(royals: Bank):
    """If they were not excluded, the answer to a : b = b : … would be b itself."""
    assert analogies(royals, [("king", "man", "man", "man")]).accuracy == 0
    assert analogies(royals, [("apple", "man", "man", "king")]).accuracy == 1


def test_questions_with_words_that_are_not_there_are_not_asked(royals: Bank, tmp_path: Path):
    questions = [("man", "king", "woman", "queen"), ("man", "king", "woman", "empress"), ("a", "b", "c", "d")]
    assert analogies(royals, questions) == Analogies(1.0, 1, 3)
    without = small_bank(tmp_path / "unseen", ROYALS, unseen=(" queen",))
    with pytest.raises(InputError, match="0 of 1 questions"):
        analogies(without, questions[:1])


def test_answers_are_those_of_one_by_one_in_blocks_of_any_size(news_bank: Bank):
    texts = {i: news_bank.vocab.token(i) for i in np.flatnonzero(news_bank.usable).tolist()}
    ids = {text[1:].decode(): i for i, text in texts.items() if text[:1] == b" " and text[1:2] not in (b"", b" ")}
    words, rows = list(ids), news_bank.vectors()[list(ids.values())].astype(np.float64)
    questions: list[tuple[str, str, str, str]] = []
    for number, (a, b, c, d) in enumerate(np.random.default_rng(1).choice(len(words), (300, 4)).tolist()):
        scores = rows @ (rows[b] - rows[a] + rows[c])
        scores[[a, b, c]] = -np.inf
        answer = int(scores.argmax()) if number % 3 else d
        questions.append((words[a], words[b], words[c], words[answer]))
    whole = analogies(news_bank, questions)
    assert whole.questions == 300
    assert 2 / 3 <= whole.accuracy < 0.7
    for block_bytes in (1, 30_000, 1_000_000):
        assert analogies(news_bank, questions, block_bytes) == whole


def test_a_bank_shares_all_neighbors_with_itself(news_bank: Bank, royals: Bank):
    assert neighbor_overlap(news_bank, news_bank) == 1
    assert neighbor_overlap(royals, royals, k=2) == 1


def test_shared_neighbors_are_counted_token_by_token(tmp_path: Path):
    """Token 3 is next to token 2 in the first bank, and next to token 0 in the second."""
    first = small_bank(tmp_path / "first", _on_a_circle(0, 10, 30, 45))
    second = small_bank(tmp_path / "second", _on_a_circle(0, 10, 30, -8))
    assert first.neighbors.ids.tolist() == [[1, 2], [0, 2], [3, 1], [2, 1]]
    assert second.neighbors.ids.tolist() == [[3, 1], [0, 3], [1, 0], [0, 1]]
    assert neighbor_overlap(first, second, k=2) == neighbor_overlap(second, first, k=2) == 0.5
    assert neighbor_overlap(first, second, k=1) == 0.25


def test_tokens_without_a_vector_in_one_bank_are_passed_over(tmp_path: Path):
    rows = _on_a_circle(0, 10, 30, 45)
    whole, part = small_bank(tmp_path / "whole", rows), small_bank(tmp_path / "part", rows, unseen=(" t3",))
    assert part.neighbors.ids.tolist() == [[1, 2], [0, 2], [1, 0], [-1, -1]]
    assert neighbor_overlap(whole, part, k=2) == pytest.approx((1 + 1 + 0.5) / 3)


def test_a_table_of_fewer_neighbors_than_asked_is_full_agreement_with_itself(tmp_path: Path):
    few = small_bank(tmp_path, _on_a_circle(0, 10, 30), k=5)
    assert few.neighbors.ids[0].tolist() == [1, 2, -1, -1, -1]
    assert neighbor_overlap(few, few, k=5) == 1


def test_banks_that_cannot_be_compared_are_refused(royals: Bank, tmp_path: Path):
    other = small_bank(tmp_path / "other", _on_a_circle(0, 10, 30))
    with pytest.raises(UsageError, match="different tokenizers"):
        neighbor_overlap(royals, other)
    for k in (0, 3):
        with pytest.raises(UsageError, match="has 2 columns"):
            neighbor_overlap(royals, royals, k=k)
    nothing = small_bank(tmp_path / "nothing", ROYALS, unseen=tuple(ROYALS))
    with pytest.raises(InputError, match="no token has neighbors"):
        neighbor_overlap(royals, nothing, k=2)
