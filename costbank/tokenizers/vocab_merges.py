"""Byte-level BPE in two files, vocab.json and merges.txt, as GPT-2, RoBERTa and Qwen have it.

The files say what ids stand for, but not how text is split before merging: that follows from the model's class, which
tokenizer_config.json or config.json next to them names.
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
from costbank.tokenizers.added_tokens import Entry, TokenizerSettings, check_size, read_settings, with_added
from costbank.tokenizers.base import joined, status_of_bytes
from costbank.tokenizers.huggingface import byte_level_bytes
from costbank.tokenizers.markup import is_markup
from costbank.tokenizers.placeholders import vocab_of
from costbank.vocab import TokenStatus

__all__ = ["VocabMergesTokenizer", "merges_of"]

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
_QWEN2_RULE = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)


def merges_of(vocab: Path) -> Path:
    """The merges that belong to a vocab.json: its name with merges.txt in the place of vocab.json."""
    return vocab.with_name(vocab.name.removesuffix(_VOCAB) + _MERGES)


class VocabMergesTokenizer:
    """A vocab.json and its merges.txt behind the interface of `costbank.tokenizers.Tokenizer`.

    Either file may be named. Tokens that no merge makes hold their literal text. Text can be encoded where the model's
    class is one whose rule of splitting is known.

    Raises:
        InputNotFoundError: there is no such vocab.json.
        TokenizerError: there are no merges, they are not byte-level BPE, or they contradict each other or the files
            next to them.
    """

    kind = "vocab-merges"
    libraries: tuple[str, ...] = ("tokenizers",)

    def __init__(self, path: Path) -> None:
        if path.name.endswith(_MERGES):
            path = path.with_name(path.name.removesuffix(_MERGES) + _VOCAB)
        self._path, merges = path, merges_of(path)
        check_readable(path, "vocabulary")
        if not merges.is_file():
            raise TokenizerError(
                f"{path} needs its merges, and there is no {merges.name} next to it",
                "give both files of a byte-level BPE tokenizer, or a tokenizer.json; for a list of words or labels, "
                "a file with one on each line and --set tokenizer_kind=list",
            )
        stored = path.read_bytes(), merges.read_bytes()
        self.file, self.sha256 = path.name, sha256(b"".join(sha256(part).digest() for part in stored)).hexdigest()
        self._ids = _read_vocab(path, stored[0])
        self._merges = _read_merges(merges, stored[1], self._ids)
        self._suffix = _WORD_END if any(part.endswith(_WORD_END) for _, part in self._merges) else ""
        self._settings = read_settings(path)
        entries, self.added_ids = with_added(self._entries(), self._settings, path, reads_spaces=False)
        self._texts = {entry.text: token_id for token_id, entry in enumerate(entries) if entry.text}
        self._special = [entry.text for entry in entries if entry.status is TokenStatus.SPECIAL]
        self.vocab = vocab_of([entry.token for entry in entries], [entry.status for entry in entries])

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return joined([e.ids for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)])

    def tokenizer_json(self) -> bytes:
        """The same tokenizer as a tokenizer.json.

        Raises:
            TokenizerError: the model's class is not known, or one whose rule of splitting is not.
        """
        return self._tokenizer.to_str(pretty=False).encode()

    def _entries(self) -> list[Entry]:
        made = {left + right for left, right in self._merges}
        entries = [Entry("", b"", TokenStatus.UNUSED)] * (max(self._ids.values()) + 1)
        for text, token_id in self._ids.items():
            if text in made or len(text.removesuffix(self._suffix)) == 1:
                ends = bool(self._suffix) and text.endswith(self._suffix)
                token = byte_level_bytes(text.removesuffix(self._suffix)) + (b" " if ends else b"")
                entries[token_id] = Entry(text, token, status_of_bytes(token))
            else:
                status = TokenStatus.SPECIAL if is_markup(text) else TokenStatus.OK
                entries[token_id] = Entry(text, text.encode("utf-8", "replace"), status)
        return entries

    @cached_property
    def _tokenizer(self) -> Any:
        t = require("tokenizers", "build")
        rule = _rule(self._settings, self._path)
        tokenizer = t.Tokenizer(t.models.BPE(self._texts, self._merges))
        prefix = bool(self._settings.options.get("add_prefix_space", False))
        byte_level = t.pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=rule is None)
        tokenizer.pre_tokenizer = byte_level
        if rule is not None:
            tokenizer.normalizer = t.normalizers.NFC()
            split = t.pre_tokenizers.Split(t.Regex(rule), "isolated")
            tokenizer.pre_tokenizer = t.pre_tokenizers.Sequence([split, byte_level])
        tokenizer.decoder = t.decoders.ByteLevel()
        tokenizer.add_special_tokens([t.AddedToken(text, special=True, normalized=False) for text in self._special])
        ordinary = [token.text for token in self._settings.added.values() if token.text not in self._special]
        tokenizer.add_tokens([t.AddedToken(text, normalized=False) for text in ordinary])
        return tokenizer


def _rule(settings: TokenizerSettings, path: Path) -> str | None:
    """How text is split before merging: an expression, or None for GPT-2's, which the library has.

    Raises:
        TokenizerError: no file says it.
    """
    name, model_type = settings.tokenizer_class, settings.model_type
    if name in _QWEN2_CLASSES or (not name and model_type in _QWEN2_TYPES):
        return _QWEN2_RULE
    if name in _GPT2_CLASSES or (not name and model_type in _GPT2_TYPES):
        return None
    what = f"the class {name} splits text by a rule that is not known" if name else "no file next to it names its class"
    raise TokenizerError(
        f"{path} says what ids stand for, but not how text is split before merging, and {what}",
        "use the model's tokenizer.json to encode text; a bank from its head needs no encoding. Where text is split as "
        'GPT-2 does, a tokenizer_config.json next to it with {"tokenizer_class": "GPT2Tokenizer"} says so',
    )


def _read_vocab(path: Path, stored: bytes) -> dict[str, int]:
    try:
        ids = json.loads(stored)
        if not isinstance(ids, dict) or not all(type(token_id) is int and token_id >= 0 for token_id in ids.values()):
            raise ValueError("it does not hold an id for each token")
    except ValueError as error:
        raise TokenizerError(f"{path} is not a vocab.json: {error}", "name another tokenizer file") from None
    if len(set(ids.values())) < len(ids):
        seen: dict[int, str] = {}
        text, token_id = next((t, i) for t, i in ids.items() if seen.setdefault(i, t) != t)
        raise TokenizerError(
            f"{path} gives {seen[token_id]!r} and {text!r} the id {token_id}", "download it again, or correct it"
        )
    if missing := [byte for letter, byte in BYTE_LEVEL_ALPHABET.items() if letter not in ids]:
        raise TokenizerError(
            f"{path} is not byte-level BPE as GPT-2's is: it has no token for byte 0x{min(missing):02x}",
            "give the model's tokenizer.json",
        )
    check_size(path, max(ids.values()), len(ids), path.name)
    return ids


def _read_merges(path: Path, stored: bytes, ids: dict[str, int]) -> list[tuple[str, str]]:
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
