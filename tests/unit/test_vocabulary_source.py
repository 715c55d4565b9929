"""Banks from a tokenizer alone: its spelling."""

from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import pytest

import costbank
from costbank.bank import Bank
from costbank.config import SpellingConfig, build_config
from costbank.errors import TokenizerError, UsageError
from costbank.sources.spelling.plan import ngram_matrix
from costbank.tokenizers import load_tokenizer

FAMILIES = [["nation", "national", "nationalism"], ["quick", "quickly", "quicker"], ["paint", "painter", "painting"]]


def _build(tokenizer: Path, store: Path, **settings) -> Bank:
    return costbank.build(
        build_config(source="spelling", tokenizer=tokenizer, store=store, name="v", spelling=settings)
    )


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("<unk>\n" + "\n".join(word for family in FAMILIES for word in family) + "\nzebra\nxyz\n")
    return path


def _ngrams(word: str, shortest: int, longest: int) -> set[str]:
    marked = f"<{word}>"
    return {marked[i : i + n] for n in range(shortest, longest + 1) for i in range(len(marked) - n + 1)}


def test_weights_are_the_idf_of_ngrams_that_two_tokens_share():
    tokens = ["cat", "cart", "dog", "do"]
    actual = ngram_matrix([token.encode() for token in tokens], 2, 4).toarray()
    sets = [_ngrams(token, 2, 4) for token in tokens]
    shared = sorted(n for n in set().union(*sets) if sum(n in s for s in sets) > 1)
    weights = np.array([[log(4 / sum(n in s for s in sets)) * (n in own) for n in shared] for own in sets])
    expected = np.concatenate([weights, weights], axis=1)  # folding case does not change these tokens
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(actual @ actual.T, expected @ expected.T)


def test_boundaries_and_case_are_seen_in_one_view_and_not_in_the_other():
    tokens = [b" king", b"king", b" King", b" kind", b"kind", b" Kind", b" ring", b"ring"]
    result = ngram_matrix(tokens, 2, 5).toarray()
    cosines = dict(zip(tokens, (result @ result.T)[0], strict=True))
    assert cosines[b" king"] == pytest.approx(1)
    assert 0.3 < cosines[b"king"] < 0.99
    assert 0.3 < cosines[b" King"] < 0.99
    assert cosines[b" ring"] < cosines[b"king"]
    assert cosines[b"kind"] < cosines[b" kind"], "the beginning of a word is shared"


def test_families_of_words_are_near_each_other(words: Path, tmp_path: Path):
    bank = _build(words, tmp_path / "store", dim=8)
    for family in FAMILIES:
        ids = [bank.vocab.find(word) for word in family]
        assert {neighbor.id for neighbor in bank.nearest(ids[0], 2)} == set(ids[1:])
    unseen = bank.vocab.find("xyz")
    assert bank.vocab.status_of(unseen).name == "UNSEEN", "it shares no n-gram with another"
    assert not bank.vectors()[[0, unseen]].any()
    assert "do not reflect meaning" in (bank.path / "README.md").read_text("utf-8")


def test_svd_keeps_the_cosines_of_the_ngram_space(words: Path, tmp_path: Path):
    bank = _build(words, tmp_path / "store", dim=10)
    tokens = [bank.vocab.token(i) for i in range(1, bank.size)]
    exact = ngram_matrix(tokens, 2, 5).toarray()
    assert bank.manifest.facts["spelling_kept"] == 1.0
    assert np.allclose(bank.vectors()[1:] @ bank.vectors()[1:].T, exact @ exact.T, atol=1e-5)
    assert bank.raw is not None
    assert np.allclose(bank.raw.norms[bank.usable], 1, atol=1e-5)


def test_the_same_bytes_come_again_on_any_number_of_threads(news_model: Path, tmp_path: Path):
    from threadpoolctl import threadpool_limits

    banks = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            banks.append(_build(news_model, tmp_path / str(threads), dim=32))
    assert banks[0].id == banks[1].id
    assert banks[0].manifest.reproducible


def test_more_dimensions_keep_more_spelling(news_model: Path, tmp_path: Path):
    kept = [_build(news_model, tmp_path / str(dim), dim=dim).manifest.facts["spelling_kept"] for dim in (8, 32, 128)]
    assert all(fewer < more for fewer, more in pairwise(kept))


@pytest.mark.slow
def test_counts_of_bytepiece_are_kept(shared_data: Path, tmp_path: Path):
    path = shared_data / "bytepiece.plus.40k.model"
    bank = _build(path, tmp_path / "store", dim=16)
    assert np.array_equal(bank.vocab.counts, load_tokenizer(path).vocab.counts)
    assert (bank.vocab.counts[3:] > 0).all()


def test_a_vocabulary_of_few_words_has_fewer_dimensions(tmp_path: Path):
    (tmp_path / "labels.txt").write_text("tabby cat\ntiger cat\nhunting dog\nwatch dog\n")
    bank = _build(tmp_path / "labels.txt", tmp_path / "store")
    assert bank.dim == 3
    assert bank.nearest(0, 1)[0].text == "tiger cat"


def test_too_few_words_are_refused(tmp_path: Path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(TokenizerError, match="2 ordinary tokens"):
        _build(tmp_path / "labels.txt", tmp_path / "store")


def test_lengths_the_wrong_way_round_are_refused(words: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"min_ngram=5 is larger than spelling\.max_ngram=3"):
        _build(words, tmp_path / "store", min_ngram=5, max_ngram=3)


def test_a_tokenizer_is_needed(tmp_path: Path):
    with pytest.raises(UsageError, match="setting tokenizer is missing"):
        costbank.build(build_config(source="spelling", store=tmp_path))


def test_the_defaults_are_those_of_the_config():
    assert SpellingConfig() == SpellingConfig(dim=256, min_ngram=2, max_ngram=5)
