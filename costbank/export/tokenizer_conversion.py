"""BytePiece models, tiktoken files and plain lists in the terms of the `tokenizers` library."""

import math
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from costbank.errors import require
from costbank.tokenizers import BytePieceTokenizer, PlainTokenizer, TekkenTokenizer, TiktokenTokenizer
from costbank.tokenizers.huggingface import byte_level_text
from costbank.vocab import TokenStatus

__all__ = ["all_merges", "byte_level_bpe", "byte_level_unigram", "saved", "word_list"]

_LINES = r"[^\n]*\n+|[^\n]+"


def byte_level_unigram(original: BytePieceTokenizer, path: Path) -> bytes:
    """A BytePiece model: NFC, lines with the line feeds after them, and a unigram model over the bytes of each."""
    t = require("tokenizers", "export")
    vocab = original.vocab
    log_total = math.log(sum(count for count in vocab.counts.tolist() if count > 0))
    pieces = []
    for token_id, count in enumerate(vocab.counts.tolist()):
        token = vocab.token(token_id)
        if vocab.status_of(token_id) is TokenStatus.SPECIAL:
            # No byte is written as a space, so no text reaches it.
            pieces.append((f" {token.decode()}", 0.0))
        else:
            pieces.append((byte_level_text(token), math.log(count) - log_total))
    tokenizer = t.Tokenizer(t.models.Unigram(pieces, 0))
    tokenizer.normalizer = t.normalizers.NFC()
    tokenizer.pre_tokenizer = _split_then_bytes(t, _LINES)
    tokenizer.decoder = t.decoders.ByteLevel()
    return saved(tokenizer)


def byte_level_bpe(original: TiktokenTokenizer | TekkenTokenizer, path: Path) -> bytes:
    """A file of ranks: its splitting rule, and merges in the order of ranks. Ids of other tokens are left out.

    Raises:
        TokenizerError: no splitting rule is known for so many ranks.
    """
    t = require("tokenizers", "export")
    names = {rank: byte_level_text(token) for token, rank in sorted(original.ranks.items(), key=itemgetter(1))}
    model = t.models.BPE({name: token_id for token_id, name in names.items()}, all_merges(list(names.values())))
    model.ignore_merges = True
    # Oniguruma takes `$` for the end of a line, and a `+` after an interval for a repetition of it.
    rule = original.pattern.replace("$", r"\z").replace("{1,3}+", "{1,3}")
    tokenizer = t.Tokenizer(model)
    tokenizer.pre_tokenizer = _split_then_bytes(t, rule)
    tokenizer.decoder = t.decoders.ByteLevel()
    return saved(tokenizer)


def word_list(original: PlainTokenizer, path: Path) -> bytes:
    """A plain list: words between whitespace; others are an error where it has no unknown token, as they are here."""
    t = require("tokenizers", "export")
    vocab = original.vocab
    lines = {vocab.token(token_id).decode(): token_id for token_id in range(vocab.size)}
    tokenizer = t.Tokenizer(t.models.WordLevel(lines, original.unknown or "<unk>"))
    tokenizer.normalizer = t.normalizers.Replace(t.Regex(r"[\x1c-\x1f]"), " ")  # whitespace to Python, not to Unicode
    tokenizer.pre_tokenizer = t.pre_tokenizers.WhitespaceSplit()
    return saved(tokenizer)


def all_merges(ranked: Sequence[str], symbols: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Every way to put a piece together from two, for pieces in the order in which they are preferred.

    Args:
        ranked: the pieces.
        symbols: others that can be a part.
    """
    rank = {piece: position for position, piece in enumerate([*ranked, *symbols])}
    merges = []
    for piece in ranked:
        parts = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(left, right) for left, right in parts if left in rank and right in rank]
        merges += sorted(known, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    return merges


def saved(tokenizer: Any) -> bytes:
    return tokenizer.to_str(pretty=False).encode()


def _split_then_bytes(t: Any, rule: str) -> Any:
    return t.pre_tokenizers.Sequence(
        [
            t.pre_tokenizers.Split(t.Regex(rule), "isolated"),
            t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
