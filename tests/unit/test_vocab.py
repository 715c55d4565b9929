import numpy as np
import pytest

from costbank.errors import ShapeError, TokenNotFoundError
from costbank.vocab import TokenStatus, Vocab, display_bytes

TOKENS = [b"<s>", b"A", b"A", b" king", b"king", b" k\xc3\xb6nig", b"\xe4\xbd", b"\n", b"", b"  "]
STATUS = [
    TokenStatus.SPECIAL,
    TokenStatus.BYTE,
    *[TokenStatus.OK] * 5,
    TokenStatus.BYTE,
    TokenStatus.UNUSED,
    TokenStatus.OK,
]


@pytest.fixture
def vocab() -> Vocab:
    return Vocab.from_tokens(TOKENS, STATUS)


def test_every_id_gives_back_its_bytes(vocab: Vocab):
    assert [vocab.token(i) for i in range(vocab.size)] == TOKENS


@pytest.mark.parametrize(
    ("text", "token_id"),
    [
        ("king", 4),
        (" king", 3),
        ("▁king", 3),
        ("Ġking", 3),
        ("▁▁", 9),
        ("könig", 5),
        ("A", 2),
        ("<s>", 0),
        ("id:7", 7),
        ("hex:e4bd", 6),
        ("hex:206B696E67", 3),
    ],
)
def test_a_token_is_found_as_a_person_writes_it(vocab: Vocab, text: str, token_id: int):
    assert vocab.find(text) == token_id


@pytest.mark.parametrize("text", ["kin", "", "id:10", "id:-1", "hex:zz", "hex:", "Ġ", "id:", "▁▁king"])
def test_what_is_no_token_is_refused_with_a_hint(vocab: Vocab, text: str):
    with pytest.raises(TokenNotFoundError) as caught:
        vocab.find(text)
    assert caught.value.hint


def test_no_text_is_no_token_even_where_a_lone_space_is_one():
    vocab = Vocab.from_tokens([b" ", b"a"], [TokenStatus.OK] * 2)
    assert vocab.find(" ") == 0
    with pytest.raises(TokenNotFoundError):
        vocab.find("")


def test_the_hint_names_tokens_that_begin_alike(vocab: Vocab):
    with pytest.raises(TokenNotFoundError) as caught:
        vocab.find("kings")
    assert "▁king" in caught.value.hint


@pytest.mark.parametrize(
    ("token", "shown"),
    [(b" king", "▁king"), (b"  x", "▁▁x"), (b"a b", "a b"), (b"\n\t", "\\n\\t"), (b"\xe4\xbd", "\\xe4\\xbd"),
     ("日本".encode(), "日本"), (b"\x1b[31m", "\\x1b[31m"), ("\u202e".encode(), "\\u202e")],
)  # fmt: skip
def test_a_token_is_shown_on_one_printable_line(token: bytes, shown: str):
    assert display_bytes(token) == shown


def test_the_word_start_of_a_piece_is_another_token(vocab: Vocab):
    assert vocab.word_start_of(4) == 3
    assert vocab.word_start_of(3) is None


def test_ordinary_tokens_without_evidence_become_unseen(vocab: Vocab):
    seen = np.zeros(vocab.size, bool)
    seen[[3, 7]] = True
    learnt = vocab.with_evidence(seen)
    names = [TokenStatus(s).name for s in learnt.status]
    assert names == ["SPECIAL", "UNSEEN", "UNSEEN", "OK", "UNSEEN", "UNSEEN", "UNSEEN", "BYTE", "UNUSED", "UNSEEN"]
    assert learnt.status_counts() == {"ok": 1, "byte": 1, "special": 1, "unused": 1, "unseen": 6}


def test_padding_rows_follow_the_tokens(vocab: Vocab):
    padded = vocab.padded(vocab.size + 3)
    assert [padded.token(i) for i in range(vocab.size)] == [vocab.token(i) for i in range(vocab.size)]
    assert padded.status_counts()["unused"] == vocab.status_counts()["unused"] + 3
    assert padded.token(vocab.size + 2) == b""
    assert padded.counts[-1] == -1


def test_the_fingerprint_survives_a_copy_and_changes_with_any_id(vocab: Vocab):
    assert Vocab.from_tokens(list(TOKENS), list(STATUS), [5] * len(TOKENS)).fingerprint == vocab.fingerprint
    prints = {vocab.fingerprint}
    for i in range(len(TOKENS)):
        changed = [*TOKENS[:i], TOKENS[i] + b"!", *TOKENS[i + 1 :]]
        prints.add(Vocab.from_tokens(changed, STATUS).fingerprint)
        other = TokenStatus.UNUSED if STATUS[i] is not TokenStatus.UNUSED else TokenStatus.OK
        prints.add(Vocab.from_tokens(TOKENS, [*STATUS[:i], other, *STATUS[i + 1 :]]).fingerprint)
    prints.add(Vocab.from_tokens([*TOKENS[1:], TOKENS[0]], STATUS).fingerprint)
    assert len(prints) == 2 + 2 * len(TOKENS)


def test_arrays_that_do_not_fit_are_refused(vocab: Vocab):
    with pytest.raises(ShapeError, match="10 tokens with 9 statuses"):
        Vocab(vocab.data, vocab.offsets, vocab.status[:-1], vocab.counts)
