"""Tokens listed in files next to a tokenizer: added_tokens.json, tokenizer_config.json, special_tokens_map.json.

A SentencePiece model, a vocab.json or a tiktoken file holds only a model's first tokens. These files list the tokens
that were added later, and which tokens are special. They are read if the tokenizer's file has one of the names that
model folders use. A tokenizer file with another name is read alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from costbank.errors import TokenizerError
from costbank.tokenizers.markup import is_markup
from costbank.tokenizers.placeholders import build_vocab, placeholder_pattern
from costbank.vocab import TokenStatus, Vocab

__all__ = [
    "MODEL_FOLDER_NAMES",
    "UNUSED_ENTRY",
    "AddedToken",
    "TokenizerSettings",
    "VocabEntry",
    "add_tokens",
    "check_largest_id",
    "read_settings",
    "vocab_of_entries",
]

MODEL_FOLDER_NAMES = (
    "tokenizer.json",
    "tekken.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm.model",
    "tiktoken.model",
    "*.tiktoken",
    "vocab.json",
    "vocab.txt",
)
"""File names of tokenizers in model folders. A tokenizer.json contains everything that the other files contain."""

_CONFIG, _ADDED, _SPECIAL_MAP, _MODEL = (
    "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json", "config.json",
)  # fmt: skip
_SPECIAL_KEYS = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    "additional_special_tokens", "extra_special_tokens",
)  # fmt: skip
_MAX_UNUSED = 65_536


class VocabEntry(NamedTuple):
    """One id of a tokenizer: the text in the tokenizer's file, the bytes that it represents, and the status."""

    text: str
    token: bytes
    status: TokenStatus


UNUSED_ENTRY = VocabEntry("", b"", TokenStatus.UNUSED)


@dataclass(frozen=True)
class AddedToken:
    """A token that gets its id from a file next to the tokenizer.

    Attributes:
        special: whether the file or the token's text says that the token is markup and not part of a text.
        file: the name of the file.
    """

    text: str
    special: bool
    file: str


@dataclass(frozen=True)
class TokenizerSettings:
    """The contents of the files next to a tokenizer.

    Attributes:
        added: the added tokens by id.
        special: the texts of special tokens, in the order of the files. The tokenizer knows their ids.
        tokenizer_class: the class in transformers, without the ending Fast; empty if no file names one.
        model_type: from config.json; empty if there is none.
        options: the whole tokenizer_config.json.
    """

    added: Mapping[int, AddedToken] = field(default_factory=dict)
    special: tuple[str, ...] = ()
    tokenizer_class: str = ""
    model_type: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def read_settings(path: Path) -> TokenizerSettings:
    """Read the files next to a tokenizer's file. The result is empty if model folders do not use the file's name.

    Raises:
        TokenizerError: one of these files cannot be read, or they contradict each other.
    """
    if not any(fnmatch(path.name, name) for name in MODEL_FOLDER_NAMES):
        return TokenizerSettings()
    config, added_json, special_map, model = (
        _read_json(path, name) for name in (_CONFIG, _ADDED, _SPECIAL_MAP, _MODEL)
    )
    special = tuple(dict.fromkeys((*_special_texts(config), *_special_texts(special_map))))
    added: dict[int, AddedToken] = {}
    for token_id, token in (*_config_tokens(path, config), *_listed_tokens(path, added_json, special)):
        known = added.setdefault(token_id, token)
        if known.text != token.text:
            raise _conflict(path, f"id {token_id} is {known.text!r} in {known.file} and {token.text!r} in {token.file}")
    ids: dict[str, int] = {}
    for token_id, token in added.items():
        if ids.setdefault(token.text, token_id) != token_id:
            raise _conflict(path, f"{token.text!r} has the ids {ids[token.text]} and {token_id} in {token.file}")
    name = config.get("tokenizer_class") or model.get("tokenizer_class") or ""
    return TokenizerSettings(added, special, str(name).removesuffix("Fast"), str(model.get("model_type") or ""), config)


def add_tokens(
    own: Sequence[VocabEntry], settings: TokenizerSettings, path: Path, *, metaspace: bool
) -> tuple[list[VocabEntry], frozenset[int]]:
    """The entries of a tokenizer together with added tokens, and the ids of the added tokens.

    An added token can rename a special or unused one. Ids without a token are unused.

    Args:
        own: the entries in the tokenizer's own file, by id.
        settings: the contents of the files next to it.
        path: the tokenizer's file, for messages.
        metaspace: whether ▁ means a space in ordinary tokens.

    Raises:
        TokenizerError: an id is out of range, or the files disagree about its token.
    """
    entries = list(own)
    if settings.added:
        largest = max(settings.added)
        check_largest_id(path, largest, len(entries), settings.added[largest].file)
        entries += [UNUSED_ENTRY] * (largest + 1 - len(entries))
    ids = {entry.text: token_id for token_id, entry in enumerate(own) if entry.text} if settings.added else {}
    for token_id, token in sorted(settings.added.items()):
        old = entries[token_id]
        if old.text == token.text:
            if old.status is not TokenStatus.BYTE and (token.special or old.status is TokenStatus.UNUSED):
                entries[token_id] = _as_special(old) if token.special else old._replace(status=TokenStatus.OK)
            continue
        may_be_renamed = old.status in (TokenStatus.SPECIAL, TokenStatus.UNUSED) or placeholder_pattern(old.token)
        if not may_be_renamed:
            raise _conflict(path, f"id {token_id} is {old.text!r} in {path.name} and {token.text!r} in {token.file}")
        if ids.get(token.text, token_id) != token_id:
            raise _conflict(
                path, f"{token.text!r} is id {ids[token.text]} in {path.name} and id {token_id} in {token.file}"
            )
        entries[token_id] = _entry_of(token, metaspace)
    special = frozenset(settings.special)
    marked = [
        _as_special(entry) if entry.text in special and entry.status is not TokenStatus.BYTE else entry
        for entry in entries
    ]
    return marked, frozenset(settings.added)


def vocab_of_entries(entries: Sequence[VocabEntry]) -> Vocab:
    """The vocabulary of these entries. Placeholders get the status unused."""
    return build_vocab([entry.token for entry in entries], [entry.status for entry in entries])


def check_largest_id(path: Path, largest: int, tokens: int, file: str) -> None:
    """Check that the largest id in `file` is plausible for a vocabulary of `tokens` tokens.

    Raises:
        TokenizerError: the id is far larger than the number of tokens.
    """
    if largest < 2 * tokens + _MAX_UNUSED:
        return
    if file == path.name:
        raise TokenizerError(
            f"{path} has {tokens:,} tokens, so its id {largest:,} is out of range",
            "download or create the file again",
        )
    raise _conflict(path, f"the id {largest:,} in {file} is out of range for {path.name}, which has {tokens:,} tokens")


def _as_special(entry: VocabEntry) -> VocabEntry:
    """The entry as a special token. Its bytes are its literal text: ▁ in it is not a space."""
    return VocabEntry(entry.text, entry.text.encode("utf-8", "surrogateescape"), TokenStatus.SPECIAL)


def _entry_of(token: AddedToken, metaspace: bool) -> VocabEntry:
    text = token.text.replace("▁", " ") if metaspace and not token.special else token.text
    status = TokenStatus.SPECIAL if token.special else TokenStatus.OK
    return VocabEntry(token.text, text.encode("utf-8", "replace"), status)


def _read_json(path: Path, name: str) -> dict[str, Any]:
    file = path.parent / name
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise _conflict(path, f"{name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise _conflict(path, f"{name} is not a JSON object")
    return content


def _config_tokens(path: Path, config: dict[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise _conflict(path, f"added_tokens_decoder in {_CONFIG} does not map ids to tokens")
    for key, token in decoder.items():
        text = token.get("content") if isinstance(token, dict) else token
        special = bool(token.get("special")) if isinstance(token, dict) else False
        yield _parse(path, key, text, special, _CONFIG)


def _listed_tokens(
    path: Path, added_json: dict[str, Any], special: tuple[str, ...]
) -> Iterator[tuple[int, AddedToken]]:
    for text, token_id in added_json.items():
        yield _parse(path, token_id, text, text in special, _ADDED)


def _parse(path: Path, key: Any, text: Any, special: bool, file: str) -> tuple[int, AddedToken]:
    is_integer = (isinstance(key, int) and not isinstance(key, bool)) or (
        isinstance(key, str) and key.strip().isdecimal()
    )
    if not is_integer or int(key) < 0:
        raise _conflict(path, f"{text!r} has the id {key!r} in {file}, but an id must be an integer of 0 or more")
    if not isinstance(text, str) or not text:
        raise _conflict(path, f"id {key} in {file} has no text")
    return int(key), AddedToken(text, special or is_markup(text), file)


def _special_texts(content: dict[str, Any]) -> Iterator[str]:
    for name in _SPECIAL_KEYS:
        value = content.get(name)
        values = list(value.values()) if isinstance(value, dict) and "content" not in value else value
        for token in values if isinstance(values, list) else [values]:
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str) and text:
                yield text


def _conflict(path: Path, what: str) -> TokenizerError:
    return TokenizerError(
        f"the files next to {path} do not fit it: {what}",
        f"correct these files, or give a copy of {path.name} under another name, which is read without them",
    )
