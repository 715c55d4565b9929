"""An indexed vocabulary gives the answers of a loop over all tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costbank.vocab import TokenStatus, Vocab
from costbank.vocab_index import IndexedVocab

TOKENS = [b"", b" king", b"king", b"kin", b"g", b"", b" kingdom", b"king", b"\xff\0", b"\0", b"  ", b"KING", b"gki"]


def _indexed(tokens: list[bytes]) -> IndexedVocab:
    return IndexedVocab.from_tokens(tokens, [TokenStatus.OK] * len(tokens))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "part", [b"", b"k", b"king", b" king", b"gk", b"\0", b"\xff\0", b" ", b"  ", b"zz", b"kingdoms"]
)
def test_searches_are_those_of_a_loop(part: bytes):
    vocab = _indexed(TOKENS)
    assert vocab.starting_with(part).tolist() == [i for i, token in enumerate(TOKENS) if token.startswith(part)]
    assert vocab.containing(part).tolist() == [i for i, token in enumerate(TOKENS) if part in token]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=4), min_size=1, max_size=20), st.binary(max_size=3))
def test_searches_and_lookups_of_any_bytes(tokens: list[bytes], part: bytes):
    vocab = _indexed(tokens)
    assert vocab.containing(part).tolist() == [i for i, token in enumerate(tokens) if part in token]
    assert vocab.starting_with(part).tolist() == [i for i, token in enumerate(tokens) if token.startswith(part)]
    plain = Vocab.from_tokens(tokens, [TokenStatus.OK] * len(tokens))
    for token in {part, *tokens}:
        assert vocab.ids_of(token) == plain.ids_of(token)


def test_a_match_does_not_cross_from_one_token_to_the_next():
    assert _indexed([b"ab", b"cd", b"bc"]).containing(b"bc").tolist() == [2]
    assert _indexed([b"a", b"", b"a"]).containing(b"aa").tolist() == []


def test_tokens_of_equal_hashes_are_told_apart_by_their_bytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("costbank.vocab_index._MULTIPLIER", 1)  # now all anagrams have one hash
    vocab = _indexed([b"ab", b"ba", b"ab"])
    hashes, _ = vocab._by_hash
    assert len(np.unique(hashes)) == 1
    assert (vocab.ids_of(b"ab"), vocab.ids_of(b"ba")) == ([0, 2], [1])


def test_a_text_is_made_once_and_some_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("costbank.vocab_index._MOST_TEXTS", 2)
    vocab = _indexed(TOKENS)
    assert [vocab.texts[i] for i in (1, 2, 3, 1, 1)] == ["▁king", "king", "kin", "▁king", "▁king"]
    assert len(vocab.texts) <= 2


def test_a_lookup_is_a_match_or_none():
    vocab = _indexed(TOKENS)
    for text in ("king", "piece:king", "id:4", "hex:ff00", "KING"):
        assert vocab.lookup(text) == vocab.match(text)
    assert vocab.lookup("queen") is None
    assert vocab.lookup("id:400") is None
