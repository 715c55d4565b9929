"""Convert BytePiece models, tiktoken files and plain lists to tokenizers of the library `tokenizers`."""

import math
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from costbank.errors import require
from costbank.tokenizers import BytePieceTokenizer, PlainTokenizer, TekkenTokenizer, TiktokenTokenizer
from costbank.tokenizers.huggingface import byte_level_text
from costbank.vocab import TokenStatus

__all__ = ["all_merges", "from_bytepiece", "from_ranks", "from_word_list", "to_json"]

_LINES = r"[^\n]*\n+|[^\n]+"


def from_bytepiece(original: BytePieceTokenizer, path: Path) -> bytes:
    """Convert a BytePiece model: NFC, a split after line feeds, and a unigram model over the bytes of each line."""
    t = require("tokenizers", "export")
    vocab = original.vocab
    log_total = math.log(sum(count for count in vocab.counts.tolist() if count > 0))
    pieces = []
    for token_id, count in enumerate(vocab.counts.tolist()):
        token = vocab.token(token_id)
        if vocab.status_of(token_id) is TokenStatus.SPECIAL:
            # Byte-level text has no spaces, so no text matches this piece.
            pieces.append((f" {token.decode()}", 0.0))
        else:
            pieces.append((byte_level_text(token), math.log(count) - log_total))
    tokenizer = t.Tokenizer(t.models.Unigram(pieces, 0))
    tokenizer.normalizer = t.normalizers.NFC()
    tokenizer.pre_tokenizer = _split_then_bytes(t, _LINES)
    tokenizer.decoder = t.decoders.ByteLevel()
    return to_json(tokenizer)


def from_ranks(original: TiktokenTokenizer | TekkenTokenizer, path: Path) -> bytes:
    """Convert a tiktoken file or a tekken.json: its splitting rule, and merges by rank.

    Tokens without a rank are omitted.

    Raises:
        TokenizerError: no known encoding has this number of ranks, so the splitting rule is unknown.
    """
    t = require("tokenizers", "export")
    names = {rank: byte_level_text(token) for token, rank in sorted(original.ranks.items(), key=itemgetter(1))}
    model = t.models.BPE({name: token_id for token_id, name in names.items()}, all_merges(list(names.values())))
    model.ignore_merges = True
    # In Oniguruma, `$` matches at the end of a line, and a `+` after an interval repeats it.
    rule = original.pattern.replace("$", r"\z").replace("{1,3}+", "{1,3}")
    tokenizer = t.Tokenizer(model)
    tokenizer.pre_tokenizer = _split_then_bytes(t, rule)
    tokenizer.decoder = t.decoders.ByteLevel()
    return to_json(tokenizer)


def from_word_list(original: PlainTokenizer, path: Path) -> bytes:
    """Convert a plain list: a token is a line, and text is split at whitespace.

    As in the original, an unknown word is an error if the list has no unknown token.
    """
    t = require("tokenizers", "export")
    vocab = original.vocab
    ids = {vocab.token(token_id).decode(): token_id for token_id in range(vocab.size)}
    tokenizer = t.Tokenizer(t.models.WordLevel(ids, original.unknown or "<unk>"))
    tokenizer.normalizer = t.normalizers.Replace(t.Regex(r"[\x1c-\x1f]"), " ")  # whitespace in Python, not in Unicode
    tokenizer.pre_tokenizer = t.pre_tokenizers.WhitespaceSplit()
    return to_json(tokenizer)


def all_merges(ranked: Sequence[str]) -> list[tuple[str, str]]:
    """Every merge of two pieces into a third, ordered by the rank of the third, then by the ranks of the two."""
    rank = {piece: position for position, piece in enumerate(ranked)}
    merges = []
    for piece in ranked:
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(first, second) for first, second in splits if first in rank and second in rank]
        merges += sorted(known, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    return merges


def to_json(tokenizer: Any) -> bytes:
    return tokenizer.to_str(pretty=False).encode()


def _split_then_bytes(t: Any, rule: str) -> Any:
    return t.pre_tokenizers.Sequence(
        [
            t.pre_tokenizers.Split(t.Regex(rule), "isolated"),
            t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
