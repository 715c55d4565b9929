"""Tests on lists of words: words of several pieces, groups of synonyms, and the files of users."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from costbank.analysis import wordlists
from costbank.analysis.evaluation import Analogies, analogies, word_similarity
from costbank.analysis.groups import GroupAgreement, group_agreement
from costbank.analysis.word_tests import Score, word_tests
from costbank.analysis.wordlists import english_judgments, english_questions, read_groups, read_judgments
from costbank.analysis.words import WordRows
from costbank.bank import Bank
from costbank.errors import InputError, InputNotFoundError, MissingExtraError
from tests.unit.recorded_progress import RecordedProgress
from tests.unit.small_bank import small_bank

PIECES = {
    " sun": (1, 0, 0), " s": (0, 1, 0), "un": (0, 0, 1), "flower": (0, 1, 0), "f": (0, 0, 1), "日": (1, 1, 0),
    "本": (0, 1, 1), " ": (1, 1, 1), " moon": (1, 0.1, 0), " back": (-1, 0, 0), "ward": (1, 0, 0),
}  # fmt: skip


@pytest.fixture
def pieces(tmp_path: Path) -> Bank:
    return small_bank(tmp_path, PIECES)


def _row(words: WordRows, word: str) -> list[float] | None:
    key = words.key(word)
    return None if key is None else words.rows(np.array([key]))[0].tolist()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sun", [" sun"]),
        ("sunflower", [" sun", "flower"]),
        ("sunun", [" sun", "un"]),
        ("sf", [" s", "f"]),
        ("日本", ["日", "本"]),  # the token that is only a space is not a piece
        ("un", ["un"]),
        ("sunx", []),
        ("月", []),
    ],
)
def test_a_word_is_segmented_by_the_longest_tokens(pieces: Bank, word: str, expected: list[str]):
    assert [list(PIECES)[i] for i in WordRows(pieces).pieces(word)] == expected


def test_a_word_of_pieces_has_the_normalized_mean_of_their_rows(pieces: Bank):
    words = WordRows(pieces, with_pieces=True)
    assert _row(words, "sunflower") == pytest.approx([0.5**0.5, 0.5**0.5, 0])
    assert _row(words, "Sunflower") == _row(words, "sunflower")
    assert words.key("sun") == 0
    assert words.key("SUN") == 0
    assert words.key("sunx") is None
    assert words.key("") is None
    assert words.key("backward") is None, "the mean of opposite rows has no direction"
    assert WordRows(pieces).key("sunflower") is None


def test_a_piece_without_a_vector_is_not_used(tmp_path: Path):
    bank = small_bank(tmp_path, PIECES, unseen=(" sun",))
    assert [list(PIECES)[i] for i in WordRows(bank).pieces("sunflower")] == [" s", "un", "flower"]


def test_pairs_with_words_of_pieces_agree_with_scipy(news_bank: Bank):
    judgments = english_judgments()["WordSim-353"]
    words = WordRows(news_bank, with_pieces=True)
    rows = news_bank.vectors().astype(np.float64)
    similarity, scores = [], []
    for first, second, score in judgments:
        means = [_mean_of_tokens(news_bank, words, rows, word) for word in (first, second)]
        if means[0] is not None and means[1] is not None:
            similarity.append(means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1]))
            scores.append(score)
    result = word_similarity(news_bank, judgments, with_pieces=True)
    assert (result.pairs, result.pairs_given) == (len(scores), 353)
    # In float32, a few almost equal similarities are ordered the other way around.
    assert result.rho == pytest.approx(stats.spearmanr(similarity, scores).statistic, abs=1e-4)
    assert word_similarity(news_bank, judgments).pairs < result.pairs


def _mean_of_tokens(bank: Bank, words: WordRows, rows: np.ndarray, word: str) -> np.ndarray | None:
    for spelling in (word, word.lower()):
        for token_id in bank.vocab.ids_of(f" {spelling}".encode()):
            if rows[token_id].any():
                return rows[token_id]
    ids = next((ids for spelling in (word, word.lower()) if (ids := words.pieces(spelling))), ())
    return np.mean([rows[i] for i in ids], axis=0) if ids else None


def test_equal_judgments_have_no_correlation(pieces: Bank):
    judgments = [("sun", "moon", 1.0), ("sun", "back", 1.0), ("moon", "back", 1.0)]
    assert np.isnan(word_similarity(pieces, judgments).rho)


def test_an_analogy_can_have_words_of_pieces(pieces: Bank):
    question = ("un", "日本", "sun", "sunflower")
    with pytest.raises(InputError, match="0 of 1 questions"):
        analogies(pieces, [question])
    assert analogies(pieces, [question], with_pieces=True) == Analogies(1.0, 1, 1)


def _expected_agreement(bank: Bank, groups: list[list[str]]) -> tuple[float, float, int]:
    """Precision and AUC from a full matrix of cosines, pair by pair."""
    rows = bank.vectors().astype(np.float64)
    texts = [bank.vocab.token(i) for i in range(bank.size)]
    status = bank.vocab.ordinary
    words = [
        i for i, t in enumerate(texts) if status[i] and rows[i].any() and t[:1] == b" " and t[1:2] not in (b"", b" ")
    ]
    ids = {texts[i]: i for i in reversed(words)}
    precisions, aucs = [], []
    for group in groups:
        own = [ids[f" {word}".encode()] for word in group if f" {word}".encode() in ids]
        for word in own if len(own) > 1 else ():
            others = [i for i in words if i != word]
            members = [i for i in own if i != word]
            costs = {i: np.float32(max(0, 1 - rows[i] @ rows[word])) for i in others}
            nearest = sorted(others, key=lambda i: (costs[i], i))[: len(members)]
            precisions.append(len(set(nearest) & set(members)) / len(members))
            outside = [i for i in others if i not in members]
            statistic = stats.mannwhitneyu([-costs[i] for i in members], [-costs[i] for i in outside]).statistic
            aucs.append(statistic / (len(members) * len(outside)))
    return float(np.mean(precisions)), float(np.mean(aucs)), len(aucs)


def test_groups_agree_with_a_full_matrix_in_blocks_of_any_size(news_bank: Bank):
    starts = [news_bank.vocab.display(i)[1:] for i in WordRows(news_bank).candidates()]
    nearest = [news_bank.nearest(f"▁{word}", 8) for word in starts[:12]]
    near = [[n.text[1:] for n in row if n.text[:1] == "▁" and n.text[1:].islower()] for row in nearest]
    groups = [[starts[i], *words[:3], "zzyzzx"] for i, words in enumerate(near)]
    groups += [["zzyzzx", starts[5]], [starts[-1], starts[40], starts[90]]]
    result = group_agreement(news_bank, groups)
    precision, auc, count = _expected_agreement(news_bank, groups)
    assert (result.words, result.words_given) == (count, sum(map(len, groups)))
    assert 0 < precision < 1
    assert result.precision == pytest.approx(precision)
    assert result.auc == pytest.approx(auc, abs=1e-6)
    assert group_agreement(news_bank, groups, block_bytes=1) == result


def test_groups_of_neighbors_are_perfect_and_those_without_words_have_no_score(tmp_path: Path):
    angles = np.radians([0, 5, 90, 97, 200, 209])
    bank = small_bank(tmp_path, {f" t{i}": (np.cos(a), np.sin(a)) for i, a in enumerate(angles)})
    assert group_agreement(bank, [["t0", "t1"], ["t2", "t3"]]) == GroupAgreement(1.0, 1.0, 4, 4)
    assert group_agreement(bank, [["t0", "t4"]]) == GroupAgreement(0.0, pytest.approx(0.125), 2, 2)
    every = group_agreement(bank, [[f"t{i}" for i in range(6)]])
    assert (every.precision, np.isnan(every.auc)) == (1.0, True)
    nothing = group_agreement(bank, [["cat", "dog", "t1"]])
    assert (nothing.words, nothing.words_given, np.isnan(nothing.auc)) == (0, 3, True)


def test_equal_costs_count_half(tmp_path: Path):
    """` other` has the row of ` member`, and a larger id, so it loses the tie for the nearest token."""
    bank = small_bank(tmp_path, {" word": (1, 0), " member": (1, 1), " other": (1, 1), " far": (-1, 0)})
    for_word, for_member = (0.5 + 1) / 2, (0 + 1) / 2
    assert group_agreement(bank, [["word", "member"]]).auc == pytest.approx((for_word + for_member) / 2)
    assert group_agreement(bank, [["word", "member"]]).precision == 0.5
    assert group_agreement(bank, [["word", "other"]]).precision == 0


def test_the_tests_have_both_columns_and_show_progress(pieces: Bank):
    progress = RecordedProgress()
    judgments = {"own": [("sun", "moon", 3.0), ("sun", "back", 1.0), ("moon", "sunflower", 2.0)]}
    questions = {"analogies": [("un", "日本", "sun", "sunflower")]}
    tests = word_tests(pieces, judgments, questions, {"synonyms": [["sun", "moon"]]}, progress)
    assert [(t.test, t.measure) for t in tests] == [
        ("own", "spearman"), ("analogies", "accuracy"), ("synonyms", "precision"), ("synonyms", "auc")
    ]  # fmt: skip
    assert (tests[0].one_token, tests[0].with_pieces) == (Score(None, 2, 3), Score(1.0, 3, 3))
    assert (tests[1].one_token, tests[1].with_pieces) == (Score(None, 0, 1), Score(1.0, 1, 1))
    assert tests[3].one_token == Score(1.0, 2, 2)
    assert progress.steps == ["answer analogies", "compare words of groups", "compare words of groups"]


def test_questions_of_whole_words_are_answered_once(pieces: Bank):
    progress = RecordedProgress()
    (test,) = word_tests(pieces, {}, {"own": [("sun", "moon", "s", "back")]}, {}, progress)
    assert test.one_token == test.with_pieces == Score(1.0, 1, 1)
    assert progress.steps == ["answer analogies"]


def test_the_english_lists_are_complete():
    assert {name: len(pairs) for name, pairs in english_judgments().items()} == {"WordSim-353": 353, "SimLex-999": 999}
    questions = english_questions()
    assert len(questions) == 19_544
    assert questions[0] == ("Athens", "Greece", "Baghdad", "Iraq")


def test_without_gensim_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        wordlists, "find_spec", lambda name: None if name == "gensim" else importlib.util.find_spec(name)
    )
    for read in (english_judgments, english_questions):
        with pytest.raises(MissingExtraError, match="gensim") as caught:
            read()
        assert "costbank[build]" in caught.value.hint


def test_files_of_users_are_read(tmp_path: Path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes("\ufeff# a title\r\n\r\n日本\tJapan\t9.5\r\ncar\tauto\t-1e1".encode())
    assert read_judgments(path) == [("日本", "Japan", 9.5), ("car", "auto", -10.0)]
    path.write_text("car\tauto\tautomobile\tcar\n\nNew York\tBig Apple\n")
    assert read_groups(path) == [["car", "auto", "automobile"], ["New York", "Big Apple"]]


@pytest.mark.parametrize(
    "line",
    ["car auto 3", "car\tauto", "car\tauto\t3\t4", "car\tauto\tnan", "car\tauto\tmuch", "\tauto\t3", "\x1b[2J\tb"],
)
def test_a_bad_judgment_is_named_with_its_line(tmp_path: Path, line: str):
    path = tmp_path / "pairs.tsv"
    path.write_text(f"# title\ncar\tauto\t3\n{line}\n")
    with pytest.raises(InputError, match="two words and a number") as caught:
        read_judgments(path)
    assert f"{path} line 3 " in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("line", ["car", "car\tcar", "car\t\tauto", "car, auto"])
def test_a_bad_group_is_named_with_its_line(tmp_path: Path, line: str):
    path = tmp_path / "groups.tsv"
    path.write_text(f"{line}\n")
    with pytest.raises(InputError, match="line 1 is not two or more different words"):
        read_groups(path)


def test_files_that_are_not_lists_are_refused(tmp_path: Path):
    path = tmp_path / "pairs.tsv"
    with pytest.raises(InputNotFoundError):
        read_judgments(path)
    for content, message in ((b"\n# x\n", "only blank lines"), (b"a\tb\t\xff", "not UTF-8"), (b"a\0", "NUL")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_judgments(path)


def test_candidates_are_ascending(news_bank: Bank):
    words = WordRows(news_bank, with_pieces=True)
    assert words.key("internationalization") is not None
    assert all(first < second for first, second in pairwise(words.candidates().tolist()))
