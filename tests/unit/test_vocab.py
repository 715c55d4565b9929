import numpy as np
import pytest

from costbank.bank import Bank
from costbank.errors import ShapeError, TokenNotFoundError
from costbank.vocab import MatchedToken, TokenFacts, TokenMatch, TokenStatus, Vocab, display_bytes

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
        ("king", 3),
        ("piece:king", 4),
        ("##king", 4),
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
def test_text_that_matches_no_token_is_refused_with_a_hint(vocab: Vocab, text: str):
    with pytest.raises(TokenNotFoundError) as caught:
        vocab.find(text)
    assert caught.value.hint


def test_empty_text_names_no_token_even_if_a_space_is_a_token():
    vocab = Vocab.from_tokens([b" ", b"a"], [TokenStatus.OK] * 2)
    assert vocab.find(" ") == 0
    with pytest.raises(TokenNotFoundError):
        vocab.find("")


def test_the_hint_names_tokens_that_begin_alike(vocab: Vocab):
    with pytest.raises(TokenNotFoundError) as caught:
        vocab.find("kings")
    assert "▁king" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("zzy", "'zzy'"),
        ("it's", "'it's'"),
        ("zz\n\x1b[31m", r"'zz\n\x1b[31m'"),
        ("zz\udcff", r"'zz\xff'"),
        ("zz\udcff\n", r"'zz\xff\n'"),
        ("z" * 60, f"'{'z' * 60}'"),
        ("z" * 61, f"'{'z' * 60}…'"),
    ],
)
def test_the_message_shows_what_was_typed_on_one_printable_line(vocab: Vocab, text: str, shown: str):
    with pytest.raises(TokenNotFoundError) as caught:
        vocab.find(text)
    assert caught.value.message == f"no token matches {shown}"


@pytest.mark.parametrize(
    ("token", "shown"),
    [(b" king", "▁king"), (b"  x", "▁▁x"), (b"a b", "a b"), (b"\n\t", "\\n\\t"), (b"\xe4\xbd", "\\xe4\\xbd"),
     ("日本".encode(), "日本"), (b"\x1b[31m", "\\x1b[31m"), ("\u202e".encode(), "\\u202e")],
)  # fmt: skip
def test_a_token_is_shown_on_one_printable_line(token: bytes, shown: str):
    assert display_bytes(token) == shown


def _vocab(*tokens: str | bytes, **status: TokenStatus) -> Vocab:
    """Tokens with the status OK; a keyword sets the status at a position, such as `t3=TokenStatus.BYTE`."""
    data = [token if isinstance(token, bytes) else token.encode() for token in tokens]
    return Vocab.from_tokens(data, [status.get(f"t{i}", TokenStatus.OK) for i in range(len(data))])


READINGS = {
    "a word before its piece": ("king", _vocab("king", " king"), 1, 0),
    "a word alone": ("king", _vocab("x", " king"), 1, None),
    "a piece alone": ("king", _vocab("x", "king"), 1, None),
    "the piece": ("piece:king", _vocab("king", " king"), 0, None),
    "a word in quotes": (" king", _vocab("king", " king"), 1, None),
    "two spaces and a word": ("▁▁king", _vocab("king", " king", "  king"), 2, None),
    "Japanese, no word starts": ("日本", _vocab("日", "日本"), 1, None),
    "a letter, which begins words": ("č", _vocab("\r", "č", " č"), 2, 1),
    "a Maltese letter that is also a mark": ("Ġorġ", _vocab("Ġorġ", " orġ", " Ġorġ"), 1, 2),
    "a literal ▁ and a space": ("▁", _vocab("▁", " "), 1, 0),
    "the literal ▁": ("piece:▁", _vocab("▁", " "), 0, 1),
    "a newline as byte-level BPE writes it": ("Ċ", _vocab("a", "\n"), 1, None),
    "newlines with a space": ("ĠĊĊ", _vocab("a", " \n\n"), 1, None),
    "a newline and the letter": ("Ċ", _vocab("Ċ", "\n"), 1, 0),
    "byte-level BPE's letters": ("ĠcafÃ©", _vocab("a", " café"), 1, None),
    "a Czech letter is not a carriage return": ("piece:č", _vocab("č", "\r"), 0, None),
    "WordPiece's marks": ("##ing", _vocab("ing", " ing"), 0, None),
    "a heading of Markdown": ("##", _vocab("#", "##"), 1, None),
    "two marks that are text": ("##ing", _vocab("##ing", "ing"), 0, 1),
    "CLIP marks the ends of words": ("king", _vocab("king", "king ", "a "), 1, 0),
    "CLIP's own spelling": ("king</w>", _vocab("king", "king ", "a "), 1, None),
    "▁ within a token": ("▁of▁the", _vocab("of", " of the"), 1, None),
    "a byte piece": ("<0x41>", _vocab("A", b"A", t1=TokenStatus.BYTE), 1, None),
    "a byte piece in small letters": ("<0x0a>", _vocab("A", b"\n", t1=TokenStatus.BYTE), 1, None),
    "a newline as it is printed": ("\\n", _vocab("a", "\n"), 1, None),
    "a backslash and a letter": ("\\n", _vocab("\\n", "\n"), 0, 1),
    "a broken character as it is printed": ("▁\\xe4\\xbd", _vocab("a", b" \xe4\xbd"), 1, None),
    "a space that does not break": ("\\xa0", _vocab("a", "\u00a0"), 1, None),
    "composed for decomposed": ("caf\u00e9", _vocab("a", " cafe\u0301"), 1, None),
    "decomposed for composed": ("cafe\u0301", _vocab("a", " caf\u00e9"), 1, None),
    "both forms": ("caf\u00e9", _vocab("cafe\u0301", "caf\u00e9"), 1, 0),
    "a special token": ("<s>", _vocab("<s>", " <s>", t0=TokenStatus.SPECIAL), 0, 1),
    "a special token of BERT": ("[CLS]", _vocab("[CLS]", " cls", t0=TokenStatus.SPECIAL), 0, None),
    "an id": ("id:1", _vocab("a", "b"), 1, None),
    "an id that is also a text": ("id:1", _vocab("id:1", "b"), 1, 0),
    "a text like an id": ("id:99", _vocab("a", "id:99"), 1, None),
    "the text like an id": ("piece:id:1", _vocab("id:1", "b"), 0, None),
    "a text like a piece": ("piece:x", _vocab("piece:x", "y"), 0, None),
    "a piece that is also a text": ("piece:x", _vocab("piece:x", "x"), 1, 0),
    "a text like bytes": ("hex:zz", _vocab("a", " hex:zz"), 1, None),
    "bytes in groups": ("hex:e4 bd", _vocab("a", b"\xe4\xbd"), 1, None),
    "bytes of a command line": ("\udce4\udcbd", _vocab("a", b"\xe4\xbd"), 1, None),
    "an unseen word before an ordinary piece": ("king", _vocab("king", " king", t1=TokenStatus.UNSEEN), 1, 0),
}


@pytest.mark.parametrize(("text", "vocab", "token_id", "other"), READINGS.values(), ids=READINGS)
def test_a_text_is_read_as_it_is_most_likely_meant(text: str, vocab: Vocab, token_id: int, other: int | None):
    assert vocab.match(text) == TokenMatch(token_id, other)
    assert vocab.find(text) == token_id


@pytest.mark.parametrize(
    "text", ["▁queen", " queen", "hex:", "piece:", "id:x", "\ud800", "piece:KING", "queenly", "q" * 1_000_000]
)
def test_nothing_is_guessed(text: str):
    with pytest.raises(TokenNotFoundError) as caught:
        _vocab("queen", "king").match(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [("KING", "▁king"), ("King", "▁king"), ("▁queen", "queen"), ("könig", "▁konig"), ("queen ", "queen"),
     ("1", "id:1"), ("kings", "▁king"), ("ｋｉｎｇ", "▁king"), ("piece:king", "▁king"), ("hex:0", "hex:e4bda0"),
     ("č", "piece:ing")],
)  # fmt: skip
def test_the_hint_names_what_comes_close(text: str, suggestion: str):
    with pytest.raises(TokenNotFoundError) as caught:
        _vocab(" king", "queen", " konig", "đ").match(text)
    assert suggestion in caught.value.hint
    assert "đ" not in caught.value.hint  # it shares a byte with č, but no character


def test_ids_are_numbers_of_any_kind(vocab: Vocab):
    assert vocab.find(3) == vocab.find(np.int64(3)) == vocab.find(np.uint16(3)) == 3
    for outside in (-1, vocab.size):
        with pytest.raises(TokenNotFoundError, match="outside the vocabulary"):
            vocab.find(outside)


def test_a_displayed_token_finds_itself(news_bank: Bank):
    vocab = news_bank.vocab
    for token_id in range(vocab.size):
        match = vocab.match(vocab.display(token_id))
        assert vocab.token(token_id) in {vocab.token(i) for i in (match.id, match.other) if i is not None}
        assert vocab.find(vocab.name_of(token_id)) == token_id


def test_a_match_is_described_with_its_other_reading():
    vocab = _vocab("king", " king").with_counts(np.array([3, -1]))
    assert vocab.describe(vocab.match("king")) == MatchedToken(
        1, "▁king", "ok", None, other=TokenFacts(0, "king", "ok", 3)
    )
    assert vocab.describe(vocab.match("piece:king")).other is None


def test_ordinary_tokens_without_evidence_become_unseen(vocab: Vocab):
    seen = np.zeros(vocab.size, bool)
    seen[[3, 7]] = True
    learned = vocab.with_evidence(seen)
    names = [TokenStatus(s).name for s in learned.status]
    assert names == ["SPECIAL", "UNSEEN", "UNSEEN", "OK", "UNSEEN", "UNSEEN", "UNSEEN", "BYTE", "UNUSED", "UNSEEN"]
    assert learned.status_counts() == {"ok": 1, "byte": 1, "special": 1, "unused": 1, "unseen": 6}


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
    with pytest.raises(ShapeError, match="10 tokens, 9 statuses"):
        Vocab(vocab.data, vocab.offsets, vocab.status[:-1], vocab.counts)
