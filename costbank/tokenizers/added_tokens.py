"""Tokens that stand in files next to a tokenizer: added_tokens.json, tokenizer_config.json, special_tokens_map.json.

A SentencePiece model, a vocab.json or a tiktoken file holds a model's first tokens only. What was added to them later,
and which of them are special, stands in these files. They are read where the tokenizer's file has one of the names that
it has in a model's folder; a copy under another name is read by itself.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from costbank.errors import TokenizerError
from costbank.tokenizers.markup import is_markup
from costbank.tokenizers.placeholders import placeholder_pattern
from costbank.vocab import TokenStatus

__all__ = [
    "MODEL_FOLDER_NAMES",
    "AddedToken",
    "Entry",
    "TokenizerSettings",
    "check_size",
    "read_settings",
    "with_added",
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
"""What tokenizers are called in model folders. A tokenizer.json holds all that the others hold together."""

_CONFIG, _ADDED, _SPECIAL_MAP, _MODEL = (
    "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json", "config.json",
)  # fmt: skip
_NAMED_SPECIAL = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    "additional_special_tokens", "extra_special_tokens",
)  # fmt: skip
_MOST_SPARE = 65_536


class Entry(NamedTuple):
    """What a tokenizer's files say of one id: the text as written there, the bytes that it stands for, its status."""

    text: str
    token: bytes
    status: TokenStatus


@dataclass(frozen=True)
class AddedToken:
    """A token with an id of its own in a file next to the tokenizer.

    Attributes:
        special: whether that file, or the name, says that it marks up a text rather than stands in it.
        file: where it was read.
    """

    text: str
    special: bool
    file: str


@dataclass(frozen=True)
class TokenizerSettings:
    """What a model's folder says about its tokenizer.

    Attributes:
        added: tokens by id.
        special: texts of special tokens, whose ids the tokenizer knows, in the order of the files.
        tokenizer_class: the class in transformers, without the ending Fast; empty where no file names one.
        model_type: of config.json; empty where there is none.
        options: all of tokenizer_config.json.
    """

    added: Mapping[int, AddedToken] = field(default_factory=dict)
    special: tuple[str, ...] = ()
    tokenizer_class: str = ""
    model_type: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def read_settings(path: Path) -> TokenizerSettings:
    """What the files next to a tokenizer's file say; nothing where its name is none that a model's folder has.

    Raises:
        TokenizerError: one of these files cannot be read, or they contradict each other.
    """
    if not any(fnmatch(path.name, name) for name in MODEL_FOLDER_NAMES):
        return TokenizerSettings()
    config, listed, named, model = (_json(path, name) for name in (_CONFIG, _ADDED, _SPECIAL_MAP, _MODEL))
    special = tuple(dict.fromkeys((*_special_texts(config), *_special_texts(named))))
    added: dict[int, AddedToken] = {}
    for token_id, token in (*_of_decoder(path, config), *_of_list(path, listed, special)):
        known = added.setdefault(token_id, token)
        if known.text != token.text:
            raise _conflict(path, f"id {token_id} is {known.text!r} in {known.file} and {token.text!r} in {token.file}")
    ids: dict[str, int] = {}
    for token_id, token in added.items():
        if ids.setdefault(token.text, token_id) != token_id:
            raise _conflict(path, f"{token.text!r} has the ids {ids[token.text]} and {token_id} in {token.file}")
    name = config.get("tokenizer_class") or model.get("tokenizer_class") or ""
    return TokenizerSettings(added, special, str(name).removesuffix("Fast"), str(model.get("model_type") or ""), config)


def with_added(
    base: Sequence[Entry], settings: TokenizerSettings, path: Path, *, reads_spaces: bool
) -> tuple[list[Entry], frozenset[int]]:
    """A tokenizer's entries and the tokens that were added to them, and the ids of the latter.

    An added token may rename a special or unused one. Ids between that no token has are unused.

    Args:
        base: what the tokenizer's own file holds, in the order of ids.
        settings: what the files next to it say.
        path: the tokenizer's file, for messages.
        reads_spaces: whether ▁ stands for a space in it.

    Raises:
        TokenizerError: an id lies outside any vocabulary, or the files disagree on what it stands for.
    """
    entries = list(base)
    if settings.added:
        largest = max(settings.added)
        check_size(path, largest, len(entries), settings.added[largest].file)
        entries += [Entry("", b"", TokenStatus.UNUSED)] * (largest + 1 - len(entries))
    ids = {entry.text: token_id for token_id, entry in enumerate(base) if entry.text} if settings.added else {}
    for token_id, token in sorted(settings.added.items()):
        own = entries[token_id]
        if own.text == token.text:
            if own.status is not TokenStatus.BYTE and (token.special or own.status is TokenStatus.UNUSED):
                entries[token_id] = _special(own) if token.special else own._replace(status=TokenStatus.OK)
            continue
        spare = own.status in (TokenStatus.SPECIAL, TokenStatus.UNUSED) or placeholder_pattern(own.token)
        if not spare:
            raise _conflict(path, f"id {token_id} is {own.text!r} in {path.name} and {token.text!r} in {token.file}")
        if ids.get(token.text, token_id) != token_id:
            raise _conflict(
                path, f"{token.text!r} is id {ids[token.text]} in {path.name} and id {token_id} in {token.file}"
            )
        entries[token_id] = _entry(token, reads_spaces)
    special = frozenset(settings.special)
    marked = [
        _special(entry) if entry.text in special and entry.status is not TokenStatus.BYTE else entry
        for entry in entries
    ]
    return marked, frozenset(settings.added)


def check_size(path: Path, largest: int, tokens: int, file: str) -> None:
    """Raise a `TokenizerError` where an id is so large that it cannot be one of a vocabulary of so many tokens."""
    if largest >= 2 * tokens + _MOST_SPARE and file == path.name:
        raise TokenizerError(
            f"{path} has an id {largest:,} and {tokens:,} tokens, so its ids are not those of a vocabulary",
            "download it again, or make it anew",
        )
    if largest >= 2 * tokens + _MOST_SPARE:
        raise _conflict(path, f"the id {largest:,} in {file} is out of range for {path.name}, of {tokens:,} tokens")


def _special(entry: Entry) -> Entry:
    """An entry as a special token, which stands for its literal text: ▁ in it is not a space."""
    return Entry(entry.text, entry.text.encode("utf-8", "surrogateescape"), TokenStatus.SPECIAL)


def _entry(token: AddedToken, reads_spaces: bool) -> Entry:
    text = token.text.replace("▁", " ") if reads_spaces and not token.special else token.text
    status = TokenStatus.SPECIAL if token.special else TokenStatus.OK
    return Entry(token.text, text.encode("utf-8", "replace"), status)


def _json(path: Path, name: str) -> dict[str, Any]:
    file = path.parent / name
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise _conflict(path, f"{name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise _conflict(path, f"{name} does not hold names and values")
    return content


def _of_decoder(path: Path, config: dict[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise _conflict(path, f"added_tokens_decoder in {_CONFIG} does not hold tokens by id")
    for key, token in decoder.items():
        text = token.get("content") if isinstance(token, dict) else token
        special = bool(token.get("special")) if isinstance(token, dict) else False
        yield _checked(path, key, text, special, _CONFIG)


def _of_list(path: Path, listed: dict[str, Any], special: tuple[str, ...]) -> Iterator[tuple[int, AddedToken]]:
    for text, token_id in listed.items():
        yield _checked(path, token_id, text, text in special, _ADDED)


def _checked(path: Path, key: Any, text: Any, special: bool, file: str) -> tuple[int, AddedToken]:
    whole = (isinstance(key, int) and not isinstance(key, bool)) or (isinstance(key, str) and key.strip().isdecimal())
    if not whole or int(key) < 0:
        raise _conflict(path, f"{text!r} has the id {key!r} in {file}, which is not a whole number from 0 on")
    if not isinstance(text, str) or not text:
        raise _conflict(path, f"id {key} in {file} has no text")
    return int(key), AddedToken(text, special or is_markup(text), file)


def _special_texts(content: dict[str, Any]) -> Iterator[str]:
    for name in _NAMED_SPECIAL:
        value = content.get(name)
        values = list(value.values()) if isinstance(value, dict) and "content" not in value else value
        for token in values if isinstance(values, list) else [values]:
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str) and text:
                yield text


def _conflict(path: Path, what: str) -> TokenizerError:
    return TokenizerError(
        f"the files next to {path} do not fit it: {what}",
        f"correct them, or give a copy of {path.name} under another name, for which they are not read",
    )
