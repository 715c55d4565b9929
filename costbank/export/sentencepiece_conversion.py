"""SentencePiece models (Kudo & Richardson 2018) in the terms of the `tokenizers` library: unigram, BPE and char.

The library has no notion of pieces that text cannot reach, and a unigram model there would match `<s>` in a text. So
such pieces are spelled with a space before them, which no normalised text has in it. Byte pieces keep their names,
because the library looks them up by these; a score below any other keeps text from reaching them.
"""

from pathlib import Path
from typing import Any

from costbank.errors import TokenizerError, require
from costbank.export.tokenizer_conversion import all_merges, saved
from costbank.tokenizers import SentencePieceTokenizer
from costbank.tokenizers.sentencepiece_file import ModelKind, PieceKind, SentencePieceFile

__all__ = ["from_sentencepiece"]

_USER_PENALTY = 0.1
_BYTE_NAME = "<0x0A>"
_IN_BYTE_NAMES = {
    "<": "<(?=0x[0-9A-F]{2}>)",
    ">": "(?<=<0x[0-9A-F]{2})>",
    "x": "(?<=<0)x(?=[0-9A-F]{2}>)",
    "0": "(?<=<)0(?=x[0-9A-F]{2}>)",
}
_MARGIN = 10.0


def from_sentencepiece(original: SentencePieceTokenizer, path: Path) -> bytes:
    """The tokenizer.json of a SentencePiece model.

    Raises:
        TokenizerError: it is of a kind that cannot be expressed.
    """
    t = require("tokenizers", "export")
    model = SentencePieceFile.read(path.read_bytes())
    if model.kind == ModelKind.WORD or model.treat_whitespace_as_suffix or not model.escape_whitespaces:
        what = (
            "a model of whole words"
            if model.kind == ModelKind.WORD
            else "a model with spaces written otherwise than before words"
        )
        raise TokenizerError(
            f"{path} is {what}, which cannot be expressed as a tokenizer.json",
            "export to a format without a tokenizer",
        )
    steps = [t.normalizers.Precompiled(model.precompiled_charsmap)] if model.precompiled_charsmap else []
    if model.remove_extra_whitespaces:
        steps += [t.normalizers.Replace(t.Regex(r"\A +| +\z"), ""), t.normalizers.Replace(t.Regex(" {2,}"), " ")]
    user = [piece.text for piece in model.pieces if piece.kind == PieceKind.USER]
    if model.kind == ModelKind.UNIGRAM:
        tokenizer = _unigram(t, model)
        user = []  # a unigram model holds them itself
    else:
        tokenizer = _bpe(t, model)
    if model.add_dummy_prefix and not user:
        steps.append(t.normalizers.Prepend("▁"))
    steps.append(t.normalizers.Replace(" ", "▁"))
    tokenizer.normalizer = t.normalizers.Sequence(steps)
    if user:
        if model.add_dummy_prefix:
            tokenizer.pre_tokenizer = t.pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
        tokenizer.add_tokens([t.AddedToken(text, normalized=False) for text in user])
    ends = [t.decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []
    tokenizer.decoder = t.decoders.Sequence(
        [t.decoders.Replace("▁", " "), t.decoders.ByteFallback(), t.decoders.Fuse(), *ends]
    )
    return saved(tokenizer)


def _unigram(t: Any, model: SentencePieceFile) -> Any:
    scores = [piece.score for piece in model.pieces if piece.kind == PieceKind.NORMAL] or [0.0]
    best, never = max(scores), len(_BYTE_NAME) * min(*scores, 0.0) - _MARGIN
    pieces = []
    for piece in model.pieces:
        if piece.kind == PieceKind.NORMAL:
            pieces.append((piece.text, piece.score))
        elif piece.kind == PieceKind.USER:
            # What SentencePiece gives them, so that they win over any other way to write their text.
            pieces.append((piece.text, best * len(piece.text.encode()) - _USER_PENALTY))
        elif piece.kind == PieceKind.BYTE:
            pieces.append((piece.text, never))
        else:
            pieces.append((f" {piece.text}", 0.0))
    tokenizer = t.Tokenizer(t.models.Unigram(pieces, model.unknown, model.byte_fallback))
    known = {character for piece in model.pieces if piece.kind == PieceKind.NORMAL for character in piece.text}
    if model.byte_fallback and (cut := next((rule for mark, rule in _IN_BYTE_NAMES.items() if mark not in known), "")):
        # A byte piece would still win over a character that no piece has; so its name in a text is cut at that one.
        tokenizer.pre_tokenizer = t.pre_tokenizers.Split(t.Regex(cut), "isolated")
    return tokenizer


def _bpe(t: Any, model: SentencePieceFile) -> Any:
    """No merge leads to the name of a special or byte piece, so these keep theirs."""
    text = [piece for piece in model.pieces if piece.kind in (PieceKind.NORMAL, PieceKind.UNUSED)]
    ranked = [piece.text for piece in sorted(text, key=lambda piece: -piece.score)]
    merges = all_merges(ranked) if model.kind == ModelKind.BPE else []
    return t.Tokenizer(
        t.models.BPE(
            {piece.text: token_id for token_id, piece in enumerate(model.pieces)},
            merges,
            unk_token=model.pieces[model.unknown].text,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    )
