r"""The words of word2vec files are unique, contain no whitespace, and can be converted back to bytes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costbank.bank import Bank
from costbank.export import bytes_of_word, token_words
from costbank.vocab import TokenStatus, Vocab


def test_every_odd_token_has_a_word_of_its_own(odd_bank: Bank):
    words = token_words(odd_bank.vocab)
    assert len(set(words)) == odd_bank.size
    assert not any(re.search(r"\s", word) or not word for word in words)
    assert [bytes_of_word(word) for word in words] == [odd_bank.vocab.token(i) for i in range(odd_bank.size)]


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
    assert token_words(Vocab.from_tokens([token], [TokenStatus.OK])) == [word]


def test_ids_distinguish_equal_bytes_and_no_bytes():
    status = [TokenStatus.BYTE, TokenStatus.OK, TokenStatus.UNUSED, TokenStatus.SPECIAL]
    assert token_words(Vocab.from_tokens([b"A", b"A", b"", b"A"], status)) == [r"A\#0", "A", r"\#2", r"A\#3"]


tokens = st.one_of(st.binary(max_size=4), st.text(max_size=3).map(lambda text: text.encode("utf-8", "surrogatepass")),
                   st.text(alphabet="\\#x01▁ n\n", max_size=8).map(str.encode))  # fmt: skip


@given(st.lists(tokens, min_size=1, max_size=12))
def test_words_are_unique_and_read_back(given_tokens: list[bytes]):
    words = token_words(Vocab.from_tokens(given_tokens, [TokenStatus.OK] * len(given_tokens)))
    assert len(set(words)) == len(words)
    assert [bytes_of_word(word) for word in words] == given_tokens
    assert not any(re.search(r"\s", word) for word in words)
