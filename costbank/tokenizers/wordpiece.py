"""WordPiece in a vocab.txt, as in BERT: `##` precedes pieces that continue a word."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from costbank.errors import TokenizerError
from costbank.files import text_lines
from costbank.tokenizers.added_tokens import TokenizerSettings, check_largest_id, read_settings
from costbank.tokenizers.huggingface import HuggingFaceTokenizer

__all__ = ["WordPieceTokenizer", "is_wordpiece"]

_PREFIX, _UNKNOWN = "##", "[UNK]"
_SPECIAL = ("[PAD]", _UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
_MIN_CONTINUATIONS = 0.01  # as a share of all lines
_CLASSES = frozenset(
    f"{name}Tokenizer"
    for name in ("Bert", "ConvBert", "DistilBert", "DPRContextEncoder", "DPRQuestionEncoder", "Electra", "Funnel",
                 "LayoutLM", "LayoutLMv2", "Lxmert", "MobileBert", "RetriBert", "SqueezeBert")
)  # fmt: skip
_TYPES = frozenset(
    ("bert", "convbert", "distilbert", "dpr", "electra", "layoutlm", "layoutlmv2", "lxmert", "mobilebert",
     "squeezebert")
)  # fmt: skip


def is_wordpiece(path: Path) -> bool:
    """Whether a list is WordPiece: it has the unknown token, and a known class or enough `##` pieces."""
    settings, lines = read_settings(path), text_lines(path)
    if (settings.options.get("unk_token") or _UNKNOWN) not in lines:
        return False
    if settings.tokenizer_class in _CLASSES or (not settings.tokenizer_class and settings.model_type in _TYPES):
        return True
    continuations = sum(line.startswith(_PREFIX) and len(line) > len(_PREFIX) for line in lines)
    return continuations > max(1, _MIN_CONTINUATIONS * len(lines))


class WordPieceTokenizer(HuggingFaceTokenizer):
    """A vocab.txt of WordPiece as a `costbank.tokenizers.Tokenizer`, read as transformers reads it.

    tokenizer_config.json next to the file says whether case and accents are kept. If it does not, case is kept if the
    list has tokens with capital letters.

    Raises:
        CorpusError: the file is not UTF-8 text.
        TokenizerError: a line is repeated, `[UNK]` is missing, or a file next to it contradicts it.
    """

    kind = "wordpiece"

    def tokenizer_json(self) -> bytes:
        """The same tokenizer as a tokenizer.json."""
        return self._tokenizer.to_str(pretty=False).encode()

    def _read_json(self, path: Path) -> bytes:
        return json.dumps(_tokenizer_json(path)).encode()


def _tokenizer_json(path: Path) -> dict[str, Any]:
    lines, settings = text_lines(path), read_settings(path)
    ids = {line: token_id for token_id, line in enumerate(lines)}
    if len(ids) < len(lines):
        token_id = next(i for i, line in enumerate(lines) if ids[line] != i)
        raise TokenizerError(
            f"{path} line {ids[lines[token_id]] + 1} repeats line {token_id + 1}: {lines[token_id][:40]!r}",
            "download the file again: each token must have one id",
        )
    unknown = str(settings.options.get("unk_token") or _UNKNOWN)
    if unknown not in ids:
        raise TokenizerError(
            f"{path} has no line {unknown}, which WordPiece needs",
            "give the model's vocab.txt; for a plain list, add --set tokenizer_kind=list",
        )
    lower = settings.options.get("do_lower_case")
    return {
        "version": "1.0",
        "added_tokens": _added_tokens(path, ids, settings, unknown),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "strip_accents": settings.options.get("strip_accents"),
            "handle_chinese_chars": settings.options.get("tokenize_chinese_chars") is not False,
            "lowercase": _has_no_capitals(lines) if lower is None else bool(lower),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": _PREFIX, "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": _PREFIX,
            "max_input_chars_per_word": 100, "vocab": ids,
        },
    }  # fmt: skip


def _has_no_capitals(lines: Sequence[str]) -> bool:
    words = (line for line in lines if not (line.startswith("[") and line.endswith("]")))
    return not any(line != line.lower() for line in words)


def _added_tokens(path: Path, ids: dict[str, int], settings: TokenizerSettings, unknown: str) -> list[dict[str, Any]]:
    """The `added_tokens` of a tokenizer.json: special and added tokens in the order of their ids."""
    special = {text: ids[text] for text in dict.fromkeys((*_SPECIAL, unknown, *settings.special)) if text in ids}
    added = {token.text: (token_id, token.special) for token_id, token in settings.added.items()}
    if settings.added:
        largest = max(settings.added)
        check_largest_id(path, largest, len(ids), settings.added[largest].file)
    for text, (token_id, _) in added.items():
        if ids.get(text, token_id) != token_id:
            raise TokenizerError(
                f"{text!r} is id {ids[text]} in {path.name} and id {token_id} in {settings.added[token_id].file}",
                "download both files again",
            )
    listed = {text: (token_id, True) for text, token_id in special.items()}
    listed |= {text: (token_id, marked or text in special) for text, (token_id, marked) in added.items()}
    return [
        {"id": token_id, "content": text, "special": marked, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for text, (token_id, marked) in sorted(listed.items(), key=lambda item: item[1][0])
    ]  # fmt: skip
