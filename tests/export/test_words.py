r"""The words of word2vec files: one of its own for each id, without whitespace, and the bytes back from it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costbank.bank import Bank
from costbank.export import bytes_of_word, words
from costbank.vocab import TokenStatus, Vocab


def test_every_odd_token_has_a_word_of_its_own(odd_bank: Bank):
    names = words(odd_bank.vocab)
    assert len(set(names)) == odd_bank.size
    assert not any(re.search(r"\s", name) or not name for name in names)
    assert [bytes_of_word(name) for name in names] == [odd_bank.vocab.token(i) for i in range(odd_bank.size)]


@pytest.mark.parametrize(
    ("token", "word"),
    [
        (b" king", "▁king"),
        (b"a b", "a▁b"),
        ("▁".encode(), r"\u2581"),
        (b"\n", r"\n"),
        (b"\\n", r"\\n"),
        (b"\x00\xff", r"\x00\xff"),
        ("\u00a0".encode(), r"\u00a0"),
        ("日本".encode(), "日本"),
        (b"\\#5", r"\\#5"),
    ],
)
def test_words_are_spelled_as_documented(token: bytes, word: str):
    assert words(Vocab.from_tokens([token], [TokenStatus.OK])) == [word]


def test_equal_bytes_and_no_bytes_are_told_apart_by_ids():
    status = [TokenStatus.BYTE, TokenStatus.OK, TokenStatus.UNUSED, TokenStatus.SPECIAL]
    assert words(Vocab.from_tokens([b"A", b"A", b"", b"A"], status)) == [r"A\#0", "A", r"\#2", r"A\#3"]


tokens = st.one_of(st.binary(max_size=4), st.text(max_size=3).map(lambda text: text.encode("utf-8", "surrogatepass")),
                   st.text(alphabet="\\#x01▁ n\n", max_size=8).map(str.encode))  # fmt: skip


@given(st.lists(tokens, min_size=1, max_size=12))
def test_words_are_unique_and_read_back(given_tokens: list[bytes]):
    names = words(Vocab.from_tokens(given_tokens, [TokenStatus.OK] * len(given_tokens)))
    assert len(set(names)) == len(names)
    assert [bytes_of_word(name) for name in names] == given_tokens
    assert not any(re.search(r"\s", name) for name in names)
