"""Forms of a word distinguish vectors that learned something from random ones, and from good ones in wrong rows."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from costbank.analysis.health import Evidence, HealthReport, Quality, Severity, health
from costbank.analysis.health.wordforms import form_pairs, pair_wins
from costbank.bank import Bank, BankWriter
from costbank.bank.card import write_card
from costbank.bank.manifest import BankFacts
from costbank.neighbors import NeighborTable
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

_STEMS = ["".join(letters) for letters in product("bdfgk", "aeo", "lmnr", "aeiou")]
"""300 words of four letters; none of them is another one with an ending."""


def _vocab(forms: tuple[str, ...]) -> Vocab:
    tokens = [form.format(word=stem, Word=stem.capitalize()).encode() for form in forms for stem in _STEMS]
    return Vocab.from_tokens(tokens, [TokenStatus.OK] * len(tokens))


def _bank(place: Path, vocab: Vocab, rows: np.ndarray, source: str = "cooccurrence") -> Bank:
    unit, lengths = normalize(rows.astype(np.float32))
    with BankWriter(place / "forms") as writer:
        writer.write_vectors(unit.shape, "F32", [unit])
        writer.write_tokens(vocab)
        writer.write_rows(lengths, np.full(len(unit), np.nan, np.float32))
        writer.write_neighbors(NeighborTable.empty(len(unit), 0))
        facts = {
            "costbank": "0.1.0", "created": "2026-11-21T00:00:00+00:00", "reproducible": True, "source": source,
            "config": {"source": source, "transforms": []}, "run": {}, "facts": {}, "inputs": [], "libraries": {},
            "seconds": {},
            "tokenizer": {"kind": "list", "file": "none", "sha256": "0" * 64, "fingerprint": vocab.fingerprint},
            "vectors": {"vocab": len(unit), "dim": unit.shape[1], "dtype": "F32"}, "status": vocab.status_counts(),
            "neighbors": {"k": 0, "exact": True, "recall": 1.0}, "index": {"kind": "none", "rows": 0},
        }  # fmt: skip
        return Bank(writer.publish(BankFacts.model_validate(facts), lambda manifest: write_card(manifest, [])))


_ALL_FORMS = (" {word}", "{word}", " {Word}", " {word}s")


def _learned(random: np.random.Generator, forms: int = 4, noise: float = 0.7) -> np.ndarray:
    """Rows in which each word has a direction and its forms are near it."""
    words = np.tile(random.normal(size=(len(_STEMS), 48)), (forms, 1))
    return words + noise * random.normal(size=words.shape)


def _codes(report: HealthReport) -> dict[str, Severity]:
    return {finding.code: finding.severity for finding in report.findings}


def test_vectors_that_learned_something_are_good(tmp_path: Path, random: np.random.Generator):
    report = health(_bank(tmp_path, _vocab(_ALL_FORMS), _learned(random)))
    assert [(kind.kind, kind.pairs) for kind in report.word_forms.kinds] == [("space", 300), ("case", 300),
                                                                            ("ending", 300)]  # fmt: skip
    assert report.word_forms.auc is not None
    assert report.word_forms.auc > 0.95
    assert report.word_forms.tokens == 1_200
    assert report.quality is Quality.GOOD
    assert report.verdict.startswith("good: forms of a word lie near each other (AUC ")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["random", "shuffled", "nearly constant", "random plus a direction"])
@pytest.mark.parametrize(
    ("source", "seed"),
    [("lm-head", 0), ("word2vec", 1), ("cooccurrence", 0), ("vectors", 1), ("spelling", 0), ("transfer", 1)],
)
def test_vectors_that_tell_nothing_are_poor_whatever_their_geometry(tmp_path: Path, what: str, source: str, seed: int):
    random = np.random.default_rng(seed)
    rows = _learned(random)
    rows = {
        "random": random.normal(size=rows.shape),
        "shuffled": random.permutation(rows),
        "nearly constant": 1 + 1e-3 * random.normal(size=rows.shape),
        "random plus a direction": random.normal(size=rows.shape) + 1,
    }[what]
    report = health(_bank(tmp_path, _vocab(_ALL_FORMS), rows, source))
    assert report.word_forms.evidence is Evidence.CHANCE
    assert report.quality is Quality.POOR
    assert "word-forms-at-chance" in report.verdict


def test_constant_vectors_are_poor(tmp_path: Path):
    report = health(_bank(tmp_path, _vocab(_ALL_FORMS), np.ones((1_200, 48))))
    assert report.quality is Quality.POOR
    assert "equal-rows" in report.verdict
    assert "high-mean-cosine" not in _codes(report)


def _in_any_order(random: np.random.Generator) -> tuple[Vocab, np.ndarray]:
    """The same tokens and rows, mixed as in a real vocabulary."""
    vocab, rows = _vocab(_ALL_FORMS), _learned(random)
    order = random.permutation(vocab.size)
    tokens = [vocab.token(int(i)) for i in order]
    return Vocab.from_tokens(tokens, [TokenStatus.OK] * len(tokens)), rows[order]


def test_rows_that_are_shifted_by_one_are_poor(tmp_path: Path, random: np.random.Generator):
    """Some models' ids are those of the SentencePiece file plus one."""
    vocab, rows = _in_any_order(random)
    assert health(_bank(tmp_path, vocab, rows, "lm-head")).quality is Quality.GOOD
    report = health(_bank(tmp_path, vocab, np.roll(rows, 1, axis=0), "lm-head"))
    assert report.quality is Quality.POOR
    (finding,) = (finding for finding in report.findings if finding.code == "word-forms-at-chance")
    assert "some models shift ids" in finding.advice


def test_rows_that_are_shifted_from_an_id_on_are_found_there(tmp_path: Path, random: np.random.Generator):
    """One line too many in a vocabulary file shifts all rows after it."""
    vocab, rows = _in_any_order(random)
    rows[600:] = np.roll(rows[600:], 1, axis=0)
    report = health(_bank(tmp_path, vocab, rows))
    assert _codes(report)["word-forms-at-chance-in-part"] is Severity.SERIOUS
    assert [r.evidence is Evidence.CHANCE for r in report.word_forms.ranges] == [False, False, True, True]
    assert report.quality is Quality.CARE


@pytest.mark.parametrize("source", ["spelling", "transfer"])
def test_forms_that_are_alike_by_construction_prove_nothing(tmp_path: Path, random: np.random.Generator, source: str):
    report = health(_bank(tmp_path, _vocab(_ALL_FORMS), _learned(random, noise=0.1), source))
    assert report.built_in
    assert report.quality is Quality.UNKNOWN
    untested = "meaning not tested (forms of words are similar by construction)"
    assert report.verdict == f"{untested}; geometry: no defect found"
    assert "word-forms-built-in" in _codes(report)


def test_forms_that_share_a_row_are_left_out(tmp_path: Path, random: np.random.Generator):
    """`king`, ` king` and ` King` match one word of a vector file; only plurals have their own rows."""
    rows = _learned(random, noise=0)
    rows[900:] += 0.7 * random.normal(size=(300, 48))
    report = health(_bank(tmp_path, _vocab(_ALL_FORMS), rows, "vectors"))
    assert [kind.kind for kind in report.word_forms.kinds] == ["ending"]
    assert report.quality is Quality.GOOD


@pytest.mark.parametrize(
    "tokens",
    [
        [chr(0x4E00 + i) + chr(0x4E00 + i + 7) + chr(0x4E00 + i + 11) for i in range(500)],
        [" " + chr(0x30A1 + i % 80) + chr(0x30A1 + i // 80) + "ンー" for i in range(500)],
        [f"label{i}" for i in range(500)],
        [f" {i}" for i in range(500)],
        ["ab", "Ab", " ab", " Ab", *(chr(i) for i in range(0x400, 0x500))],
    ],
    ids=["Chinese", "Japanese", "labels", "numbers", "letters"],
)
def test_a_vocabulary_without_word_forms_cannot_tell_and_does_not_pass(
    tmp_path: Path, random: np.random.Generator, tokens: list[str]
):
    vocab = Vocab.from_tokens([token.encode() for token in tokens], [TokenStatus.OK] * len(tokens))
    report = health(_bank(tmp_path, vocab, random.normal(size=(len(tokens), 48))))
    assert report.word_forms.auc is None
    assert report.quality is Quality.UNKNOWN
    assert "too few to tell" in report.verdict
    (finding,) = (finding for finding in report.findings if finding.code == "word-forms-unknown")
    assert "random vectors pass too" in finding.meaning


def test_a_few_pairs_are_not_enough_to_call_vectors_random(tmp_path: Path, random: np.random.Generator):
    vocab = _vocab(_ALL_FORMS)
    keep = np.arange(vocab.size) % 300 < 25
    tokens = [vocab.token(int(i)) for i in np.flatnonzero(keep)]
    few = Vocab.from_tokens(tokens, [TokenStatus.OK] * len(tokens))
    report = health(_bank(tmp_path, few, random.normal(size=(len(tokens), 48))))
    assert report.word_forms.pairs >= 50
    assert report.word_forms.evidence is Evidence.UNDECIDED
    assert health(_bank(tmp_path, few, _learned(random)[keep])).quality is Quality.GOOD, "but enough for clear ones"


def test_pairs_of_word_forms():
    tokens = ["king", " king", " King", " kings", "kings", " bed", "##x", " the", "The", " 123", "123", "und", "Über"]
    vocab = Vocab.from_tokens([token.encode() for token in [*tokens, "über", b"\xff".decode("latin-1")]],
                              [TokenStatus.OK] * (len(tokens) + 2))  # fmt: skip
    result = {kind: {(vocab.token(a).decode(), vocab.token(b).decode()) for a, b in pairs.tolist()}
             for kind, pairs in form_pairs(vocab, np.ones(vocab.size, bool)).items()}  # fmt: skip
    assert result["space"] == {("king", " king"), ("kings", " kings")}
    assert result["case"] == {(" king", " King"), ("über", "Über")}
    assert not result["ending"], "one word with an ending shows no rule"
    unusable = np.ones(vocab.size, bool)
    unusable[1] = False
    assert len(form_pairs(vocab, unusable)["case"]) == 1


@pytest.mark.parametrize(
    ("stem", "ending"), [("слов{}а", "ми"), ("λόγ{}α", "ς"), ("हिन्द{}ी", "का"), ("학교{}나라", "에"), ("wort{}i", "en")]
)
def test_endings_of_many_scripts_are_learned_from_the_vocabulary(stem: str, ending: str):
    words = [" " + stem.format(letter) for letter in stem.replace("{}", "")[:1] * 1] + [
        " " + stem.format(stem[0] * n) for n in range(2, 16)
    ]
    tokens = [*words, *(word + ending for word in words)]
    vocab = Vocab.from_tokens([token.encode() for token in tokens], [TokenStatus.OK] * len(tokens))
    pairs = form_pairs(vocab, np.ones(len(tokens), bool))["ending"]
    assert {(vocab.token(a).decode() + ending) == vocab.token(b).decode() for a, b in pairs.tolist()} == {True}
    assert len(pairs) == 15


def test_the_share_of_wins_is_the_mann_whitney_statistic(random: np.random.Generator):
    first, second = random.integers(-2, 3, size=(2, 40, 4)).astype(float)
    cosines = first @ second.T
    expected = []
    for i in range(40):
        others = np.delete(cosines[i], i), np.delete(cosines[:, i], i)
        areas = [stats.mannwhitneyu([cosines[i, i]], other, alternative="greater").statistic / 39 for other in others]
        expected.append(np.mean(areas))
    assert pair_wins(first, second) == pytest.approx(expected, abs=1e-12)


def test_equal_cosines_are_chance():
    assert pair_wins(np.ones((30, 4)), np.ones((30, 4))) == pytest.approx(0.5)


def test_a_head_is_held_to_more_than_a_bank_of_text(tmp_path: Path, random: np.random.Generator):
    """An AUC that is usual for a few megabytes of text is too low for a trained head."""
    rows = _learned(random, noise=2.6)
    text = health(_bank(tmp_path, _vocab(_ALL_FORMS), rows))
    head = health(_bank(tmp_path, _vocab(_ALL_FORMS), rows, "lm-head"))
    assert text.word_forms.auc is not None
    assert 0.65 < text.word_forms.auc < 0.85
    assert (text.quality, head.quality) == (Quality.GOOD, Quality.CARE)
    assert _codes(head)["weak-word-forms"] is Severity.WARNING
    (finding,) = (finding for finding in head.findings if finding.code == "weak-word-forms")
    assert "tokenizer is the model's own" in finding.advice
