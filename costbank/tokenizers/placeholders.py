"""Ids that a model was not trained to predict, recognized by the name or the byte of their token.

Tokenizers reserve ids for later use under names such as `[unused12]` and `<|reserved_special_token_7|>`. Many
vocabularies also have the bytes that never occur in valid UTF-8, which no text can produce. All of these have the
status `unused`.

Trained tokens with similar names are not listed: T5's `<extra_id_N>` mark masked spans and are predicted;
`<|fim_prefix|>` and similar tokens mark code to fill in; OLMo's `|||EMAIL_ADDRESS|||` replaces personal data in its
corpus.
"""

import re
from collections.abc import Sequence

import numpy as np

from costbank.vocab import TokenStatus, Vocab

__all__ = ["build_vocab", "placeholder_counts", "placeholder_pattern"]

_PATTERNS = {
    "[unusedN]": r"\[unused_?\d+\]",
    "<unusedN>": r"<(?:\|)?unused_?(?:token_?)?\d+(?:\|)?>",
    "[UNUSED_TOKEN_N]": r"\[UNUSED_TOKEN_\d+\]",
    ">>UNUSED_N<<": r">>UNUSED_\d+<<",
    "<|reserved_special_token_N|>": r"<\|(?:[a-z]+_)*reserved_special_token_\d+\|>",
    "<|reserved_N|>": r"<\|reserved(?:_token)?[_-]?\d+\|>",
    "<reservedN>": r"<reserved(?:_token)?[_-]?\d+>|\[reserved_?\d+\]",
    "<|dummy_N|>": r"<\|dummy_?\d+\|>",
    "<|placeholderN|>": r"<\|placeholder_?\d+\|>",
    "<｜place▁holder▁no▁N｜>": r"<｜(?:[a-z]+_)?place▁holder▁no▁\d+｜>",
    "<SPECIAL_N>": r"<SPECIAL_\d+>",
    "[control_N]": r"\[control_\d+\]",
    "<|extra_N|>": r"<\|extra_\d+\|>|<\|EXTRA_\d+_TOKEN\|>",
    "<pad_N>": r"<pad_?\d+>|<\|pad_?\d+\|>|\[PAD_?\d+\]",
    "madeupwordN": r"<madeupword\d+>|madeupword\d+",
}
_COMPILED = {label: re.compile(pattern.encode()) for label, pattern in _PATTERNS.items()}
_MAY_MATCH = re.compile(rb"\d[^0-9A-Za-z\s]|madeupword")  # rare in ordinary tokens, so most need only this search
_IMPOSSIBLE = frozenset(bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100)))
_IMPOSSIBLE_LABEL = "bytes that UTF-8 cannot contain"


def placeholder_pattern(token: bytes) -> str | None:
    """The label of the pattern that a placeholder matches, with or without a leading space; None for other tokens."""
    if token in _IMPOSSIBLE:
        return _IMPOSSIBLE_LABEL
    if not _MAY_MATCH.search(token):
        return None
    name = token.removeprefix(b" ")
    return next((label for label, pattern in _COMPILED.items() if pattern.fullmatch(name)), None)


def build_vocab(tokens: Sequence[bytes], status: Sequence[TokenStatus], counts: Sequence[int] | None = None) -> Vocab:
    """The vocabulary of a tokenizer. Placeholders get the status unused, and represent their literal text."""
    labels = list(map(placeholder_pattern, tokens))
    literal = [token.removeprefix(b" ") if label else token for token, label in zip(tokens, labels, strict=True)]
    final_status = [TokenStatus.UNUSED if label else own for own, label in zip(status, labels, strict=True)]
    return Vocab.from_tokens(literal, final_status, counts)


def placeholder_counts(vocab: Vocab) -> dict[str, int]:
    """How many unused ids match each pattern. Padding matches none and is not counted."""
    counts: dict[str, int] = {}
    for token_id in np.flatnonzero((vocab.status == TokenStatus.UNUSED) & (np.diff(vocab.offsets) > 0)).tolist():
        if label := placeholder_pattern(vocab.token(token_id)):
            counts[label] = counts.get(label, 0) + 1
    return counts
