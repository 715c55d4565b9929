"""Byte-level BPE in two files, vocab.json and merges.txt, as in GPT-2, RoBERTa and Qwen.

The files do not say how text is split before merging. That depends on the model's class, which a tokenizer_config.json
or config.json next to them names.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import TokenizerError, require
from costbank.files import check_readable
from costbank.token_names import BYTE_LEVEL_ALPHABET
from costbank.tokenizers.added_tokens import (
    UNUSED_ENTRY,
    TokenizerSettings,
    VocabEntry,
    add_tokens,
    check_largest_id,
    read_settings,
    vocab_of_entries,
)
from costbank.tokenizers.base import byte_level_status, flatten
from costbank.tokenizers.huggingface import byte_level_bytes
from costbank.tokenizers.markup import is_markup
from costbank.vocab import TokenStatus

__all__ = ["VocabMergesTokenizer", "merges_path"]

_VOCAB, _MERGES = "vocab.json", "merges.txt"
_WORD_END = "</w>"
_GPT2_CLASSES = frozenset(
    f"{name}Tokenizer" for name in ("Bart", "CodeGen", "GPT2", "LED", "Longformer", "Mvp", "Roberta", "Whisper")
)
_GPT2_TYPES = frozenset(
    ("bart", "codegen", "gpt2", "gpt_neo", "gptj", "led", "longformer", "opt", "roberta", "whisper")
)
_QWEN2_CLASSES = frozenset({"Qwen2Tokenizer"})
_QWEN2_TYPES = frozenset({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen2_vl", "qwen2_5_vl"})
_QWEN2_PATTERN = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)


def merges_path(vocab: Path) -> Path:
    """The file with the merges of a vocab.json: the same name with merges.txt instead of vocab.json."""
    return vocab.with_name(vocab.name.removesuffix(_VOCAB) + _MERGES)


class VocabMergesTokenizer:
    """A vocab.json and its merges.txt as a `costbank.tokenizers.Tokenizer`.

    The path may be that of either file. Tokens that no merge produces represent their literal text. Text can be
    encoded if the rule by which the model's class splits text is known.

    Raises:
        InputNotFoundError: the vocab.json does not exist.
        TokenizerError: the merges.txt does not exist, the two are not byte-level BPE, or they contradict each other or
            the files next to them.
    """

    kind = "vocab-merges"
    libraries: tuple[str, ...] = ("tokenizers",)

    def __init__(self, path: Path) -> None:
        if path.name.endswith(_MERGES):
            path = path.with_name(path.name.removesuffix(_MERGES) + _VOCAB)
        self._path, merges = path, merges_path(path)
        check_readable(path, "vocabulary")
        if not merges.is_file():
            raise TokenizerError(
                f"{path} needs its merges, but there is no {merges.name} next to it",
                "give both files of a byte-level BPE tokenizer, or a tokenizer.json; for a list of words or labels, "
                "give a file with one on each line and --set tokenizer_kind=list",
            )
        contents = path.read_bytes(), merges.read_bytes()
        self.file, self.sha256 = path.name, sha256(b"".join(sha256(part).digest() for part in contents)).hexdigest()
        self._ids = _parse_vocab(path, contents[0])
        self._merges = _parse_merges(merges, contents[1], self._ids)
        self._suffix = _WORD_END if any(right.endswith(_WORD_END) for _, right in self._merges) else ""
        self._settings = read_settings(path)
        entries, self.added_ids = add_tokens(self._entries(), self._settings, path, metaspace=False)
        self._id_of_text = {entry.text: token_id for token_id, entry in enumerate(entries) if entry.text}
        self._special = [entry.text for entry in entries if entry.status is TokenStatus.SPECIAL]
        self.vocab = vocab_of_entries(entries)

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return flatten([e.ids for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)])

    def tokenizer_json(self) -> bytes:
        """The same tokenizer as a tokenizer.json.

        Raises:
            TokenizerError: the model's class, or the rule by which it splits text, is not known.
        """
        return self._tokenizer.to_str(pretty=False).encode()

    def _entries(self) -> list[VocabEntry]:
        merged = {left + right for left, right in self._merges}
        entries = [UNUSED_ENTRY] * (max(self._ids.values()) + 1)
        for text, token_id in self._ids.items():
            if text in merged or len(text.removesuffix(self._suffix)) == 1:
                ends_word = bool(self._suffix) and text.endswith(self._suffix)
                token = byte_level_bytes(text.removesuffix(self._suffix)) + (b" " if ends_word else b"")
                entries[token_id] = VocabEntry(text, token, byte_level_status(token))
            else:
                status = TokenStatus.SPECIAL if is_markup(text) else TokenStatus.OK
                entries[token_id] = VocabEntry(text, text.encode("utf-8", "replace"), status)
        return entries

    @cached_property
    def _tokenizer(self) -> Any:
        t = require("tokenizers", "build")
        pattern = _split_pattern(self._settings, self._path)
        tokenizer = t.Tokenizer(t.models.BPE(self._id_of_text, self._merges))
        prefix = bool(self._settings.options.get("add_prefix_space", False))
        byte_level = t.pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=pattern is None)
        tokenizer.pre_tokenizer = byte_level
        if pattern is not None:
            tokenizer.normalizer = t.normalizers.NFC()
            split = t.pre_tokenizers.Split(t.Regex(pattern), "isolated")
            tokenizer.pre_tokenizer = t.pre_tokenizers.Sequence([split, byte_level])
        tokenizer.decoder = t.decoders.ByteLevel()
        tokenizer.add_special_tokens([t.AddedToken(text, special=True, normalized=False) for text in self._special])
        ordinary = [token.text for token in self._settings.added.values() if token.text not in self._special]
        tokenizer.add_tokens([t.AddedToken(text, normalized=False) for text in ordinary])
        return tokenizer


def _split_pattern(settings: TokenizerSettings, path: Path) -> str | None:
    """The expression that splits text before merging; None for GPT-2's expression, which the library contains.

    Raises:
        TokenizerError: the class or its rule is not known.
    """
    name, model_type = settings.tokenizer_class, settings.model_type
    if name in _QWEN2_CLASSES or (not name and model_type in _QWEN2_TYPES):
        return _QWEN2_PATTERN
    if name in _GPT2_CLASSES or (not name and model_type in _GPT2_TYPES):
        return None
    what = f"the rule of the class {name} is not known" if name else "no file next to it names the model's class"
    raise TokenizerError(
        f"{path} does not say how text is split before merging, and {what}",
        "use the model's tokenizer.json to encode text; a bank from the model's head needs no encoding. If text is "
        'split as in GPT-2, add a tokenizer_config.json with {"tokenizer_class": "GPT2Tokenizer"} next to it',
    )


def _parse_vocab(path: Path, stored: bytes) -> dict[str, int]:
    try:
        ids = json.loads(stored)
        if not isinstance(ids, dict) or not all(type(token_id) is int and token_id >= 0 for token_id in ids.values()):
            raise ValueError("it does not map each token to an id")
    except ValueError as error:
        raise TokenizerError(f"{path} is not a vocab.json: {error}", "give another tokenizer file") from None
    if len(set(ids.values())) < len(ids):
        seen: dict[int, str] = {}
        text, token_id = next((t, i) for t, i in ids.items() if seen.setdefault(i, t) != t)
        raise TokenizerError(
            f"{path} gives {seen[token_id]!r} and {text!r} the id {token_id}", "download it again, or correct it"
        )
    if missing := [byte for letter, byte in BYTE_LEVEL_ALPHABET.items() if letter not in ids]:
        raise TokenizerError(
            f"{path} is not byte-level BPE: it has no token for byte 0x{min(missing):02x}",
            "give the model's tokenizer.json",
        )
    check_largest_id(path, max(ids.values()), len(ids), path.name)
    return ids


def _parse_merges(path: Path, stored: bytes, ids: dict[str, int]) -> list[tuple[str, str]]:
    merges = []
    try:
        lines = stored.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise TokenizerError(f"{path} is not UTF-8 text", "download it again") from None
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r")
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(text in ids for text in (*parts, "".join(parts))):
            raise TokenizerError(
                f"{path} line {number} does not merge two tokens of the vocabulary into a third: {line[:60]!r}",
                "give the merges that belong to this vocab.json",
            )
        merges.append((parts[0], parts[1]))
    return merges
