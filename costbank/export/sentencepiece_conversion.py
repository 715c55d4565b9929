"""Convert SentencePiece models (Kudo & Richardson 2018) of the kinds unigram, BPE and char to the library `tokenizers`.

A unigram model of the library matches every piece in a text, even `<s>`. So pieces that must not match get a space in
front, because normalized text contains no spaces. Byte pieces keep their names, because the library looks them up by
name; they get a score below all others instead.
"""

from pathlib import Path
from typing import Any

from costbank.errors import TokenizerError, require
from costbank.export.tokenizer_conversion import all_merges, to_json
from costbank.tokenizers import SentencePieceTokenizer
from costbank.tokenizers.sentencepiece_file import ModelKind, PieceKind, SentencePieceFile

__all__ = ["from_sentencepiece"]

_USER_PENALTY = 0.1
_BYTE_NAME = "<0x0A>"
_BYTE_NAME_CUTS = {
    "<": "<(?=0x[0-9A-F]{2}>)",
    ">": "(?<=<0x[0-9A-F]{2})>",
    "x": "(?<=<0)x(?=[0-9A-F]{2}>)",
    "0": "(?<=<)0(?=x[0-9A-F]{2}>)",
}
_SCORE_MARGIN = 10.0


def from_sentencepiece(original: SentencePieceTokenizer, path: Path) -> bytes:
    """Convert a SentencePiece model.

    Raises:
        TokenizerError: the model's pieces are whole words, or it does not write spaces as ▁ before words.
    """
    t = require("tokenizers", "export")
    model = SentencePieceFile.read(path.read_bytes())
    if model.kind == ModelKind.WORD or model.treat_whitespace_as_suffix or not model.escape_whitespaces:
        reason = (
            "its pieces are whole words"
            if model.kind == ModelKind.WORD
            else "it does not write spaces as ▁ before words"
        )
        raise TokenizerError(
            f"{path} cannot be converted to a tokenizer.json: {reason}",
            "export to a format without a tokenizer",
        )
    steps = [t.normalizers.Precompiled(model.precompiled_charsmap)] if model.precompiled_charsmap else []
    if model.remove_extra_whitespaces:
        steps += [t.normalizers.Replace(t.Regex(r"\A +| +\z"), ""), t.normalizers.Replace(t.Regex(" {2,}"), " ")]
    user_symbols = [piece.text for piece in model.pieces if piece.kind == PieceKind.USER]
    if model.kind == ModelKind.UNIGRAM:
        tokenizer = _unigram(t, model)
        user_symbols = []  # they are pieces of the unigram model
    else:
        tokenizer = _bpe(t, model)
    if model.add_dummy_prefix and not user_symbols:
        steps.append(t.normalizers.Prepend("▁"))
    steps.append(t.normalizers.Replace(" ", "▁"))
    tokenizer.normalizer = t.normalizers.Sequence(steps)
    if user_symbols:
        if model.add_dummy_prefix:
            tokenizer.pre_tokenizer = t.pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
        tokenizer.add_tokens([t.AddedToken(text, normalized=False) for text in user_symbols])
    strip = [t.decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []
    tokenizer.decoder = t.decoders.Sequence(
        [t.decoders.Replace("▁", " "), t.decoders.ByteFallback(), t.decoders.Fuse(), *strip]
    )
    return to_json(tokenizer)


def _unigram(t: Any, model: SentencePieceFile) -> Any:
    scores = [piece.score for piece in model.pieces if piece.kind == PieceKind.NORMAL] or [0.0]
    best_score, byte_score = max(scores), len(_BYTE_NAME) * min(*scores, 0.0) - _SCORE_MARGIN
    pieces = []
    for piece in model.pieces:
        if piece.kind == PieceKind.NORMAL:
            pieces.append((piece.text, piece.score))
        elif piece.kind == PieceKind.USER:
            # The score that SentencePiece gives them: better than any other segmentation of the same text.
            pieces.append((piece.text, best_score * len(piece.text.encode()) - _USER_PENALTY))
        elif piece.kind == PieceKind.BYTE:
            pieces.append((piece.text, byte_score))
        else:
            pieces.append((f" {piece.text}", 0.0))
    tokenizer = t.Tokenizer(t.models.Unigram(pieces, model.unknown, model.byte_fallback))
    characters = {character for piece in model.pieces if piece.kind == PieceKind.NORMAL for character in piece.text}
    cuts = [cut for character, cut in _BYTE_NAME_CUTS.items() if character not in characters]
    if model.byte_fallback and cuts:
        # An unknown character scores even lower than a byte piece, so a text like <0x0A> is split at such a character.
        tokenizer.pre_tokenizer = t.pre_tokenizers.Split(t.Regex(cuts[0]), "isolated")
    return tokenizer


def _bpe(t: Any, model: SentencePieceFile) -> Any:
    """Special pieces and byte pieces keep their names, because no merge produces them."""
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
