"""WordPiece in a vocab.txt, as BERT and its relatives have it: `##` before pieces that go on within a word."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from costbank.errors import TokenizerError
from costbank.files import text_lines
from costbank.tokenizers.added_tokens import TokenizerSettings, check_size, read_settings
from costbank.tokenizers.huggingface import HuggingFaceTokenizer

__all__ = ["WordPieceTokenizer", "is_wordpiece"]

_PREFIX, _UNKNOWN = "##", "[UNK]"
_SPECIAL = ("[PAD]", _UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
_LEAST_PIECES = 0.01
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
    """Whether a list is WordPiece: it has a line for unknown words, and its class or its `##` pieces say so."""
    settings, lines = read_settings(path), text_lines(path)
    if (settings.options.get("unk_token") or _UNKNOWN) not in lines:
        return False
    if settings.tokenizer_class in _CLASSES or (not settings.tokenizer_class and settings.model_type in _TYPES):
        return True
    pieces = sum(line.startswith(_PREFIX) and len(line) > len(_PREFIX) for line in lines)
    return pieces > max(1, _LEAST_PIECES * len(lines))


class WordPieceTokenizer(HuggingFaceTokenizer):
    """A vocab.txt of WordPiece behind the interface of `costbank.tokenizers.Tokenizer`, as transformers reads it.

    Case and accents are kept or not as tokenizer_config.json next to the file says; where nothing says it, case is
    kept if the list has tokens with capital letters.

    Raises:
        CorpusError: the file is not UTF-8 text.
        TokenizerError: a line stands twice, `[UNK]` is missing, or a file next to it contradicts it.
    """

    kind = "wordpiece"

    def tokenizer_json(self) -> bytes:
        """The same tokenizer as a tokenizer.json."""
        return self._tokenizer.to_str(pretty=False).encode()

    def _stored(self, path: Path) -> bytes:
        return json.dumps(_content(path)).encode()


def _content(path: Path) -> dict[str, Any]:
    lines, settings = text_lines(path), read_settings(path)
    ids = {line: token_id for token_id, line in enumerate(lines)}
    if len(ids) < len(lines):
        token_id = next(i for i, line in enumerate(lines) if ids[line] != i)
        raise TokenizerError(
            f"{path} line {ids[lines[token_id]] + 1} stands on line {token_id + 1} already: {lines[token_id][:40]!r}",
            "each token has one id; download the file again",
        )
    unknown = str(settings.options.get("unk_token") or _UNKNOWN)
    if unknown not in ids:
        raise TokenizerError(
            f"{path} has no line {unknown}, which WordPiece needs",
            "give the model's vocab.txt; --set tokenizer_kind=list reads a plain list",
        )
    lower = settings.options.get("do_lower_case")
    return {
        "version": "1.0",
        "added_tokens": _added(path, ids, settings, unknown),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "strip_accents": settings.options.get("strip_accents"),
            "handle_chinese_chars": settings.options.get("tokenize_chinese_chars") is not False,
            "lowercase": _without_capitals(lines) if lower is None else bool(lower),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": _PREFIX, "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": _PREFIX,
            "max_input_chars_per_word": 100, "vocab": ids,
        },
    }  # fmt: skip


def _without_capitals(lines: Sequence[str]) -> bool:
    words = (line for line in lines if not (line.startswith("[") and line.endswith("]")))
    return not any(line != line.lower() for line in words)


def _added(path: Path, ids: dict[str, int], settings: TokenizerSettings, unknown: str) -> list[dict[str, Any]]:
    """Special and added tokens in the order of their ids, as a tokenizer.json lists them."""
    special = {text: ids[text] for text in dict.fromkeys((*_SPECIAL, unknown, *settings.special)) if text in ids}
    added = {token.text: (token_id, token.special) for token_id, token in settings.added.items()}
    if settings.added:
        largest = max(settings.added)
        check_size(path, largest, len(ids), settings.added[largest].file)
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
