"""Check that a bank belongs to the tokenizer that a model is trained with."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

from costbank.bank import Bank
from costbank.errors import InputNotFoundError, TokenizerError, UsageError, require
from costbank.hub import local_path
from costbank.tokenizers import HuggingFaceTokenizer

__all__ = ["check_tokenizer", "has_tokenizer_json", "load_tokenizer"]

_NAMED_IDS = 5


def check_tokenizer(bank: Bank, tokenizer: Any) -> None:
    """Check that each id of a Hugging Face tokenizer has the same bytes in the bank, and that none is missing.

    Either side may have more padding ids, which have no bytes. Tokens that were added after the bank's last row (Gemma
    3's image token, `tokenizer.add_tokens`), or on ids that are padding in the bank, are accepted with a warning: their
    cost to every token is 1.

    Args:
        bank: the bank to train with.
        tokenizer: a fast tokenizer of transformers, a processor that has one, or a `tokenizers.Tokenizer`.

    Raises:
        UsageError: `tokenizer` is not one of these.
        TokenizerError: ids differ; the message has their number and lists the first of them.
    """
    backend = _backend(tokenizer)
    if backend is None:
        raise UsageError(
            f"{type(tokenizer).__name__} has no tokenizer.json to compare with the bank",
            "use a fast tokenizer of transformers",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(backend.to_str(), encoding="utf-8")
        loaded = HuggingFaceTokenizer(path)
    vocab = loaded.vocab
    ids = range(max(vocab.size, bank.vocab.size))
    tokens = [[v.token(i) if i < v.size else b"" for v in (vocab, bank.vocab)] for i in ids]
    differing = [i for i, (ours, in_bank) in enumerate(tokens) if ours != in_bank]
    added = [i for i in differing if i in loaded.added_ids and _is_padding(bank, i)]
    if added:
        shown = ", ".join(f"{i} ({vocab.display(i)})" for i in added[:_NAMED_IDS])
        warnings.warn(
            f"the tokenizer has {len(added):,} added tokens that {bank.name}@{bank.id} has no vectors for: {shown}; "
            "their cost to every token is 1",
            stacklevel=2,
        )
        differing = sorted(set(differing).difference(added))
    if not differing:
        return
    shown = "; ".join(f"{i} is {tokens[i][0]!r}, in the bank {tokens[i][1]!r}" for i in differing[:_NAMED_IDS])
    raise TokenizerError(
        f"{len(differing):,} of {len(ids):,} ids differ between the tokenizer ({vocab.size:,} ids) and "
        f"{bank.name}@{bank.id} ({bank.vocab.size:,}): {shown}",
        "use the bank of this tokenizer, or make one: costbank build --source transfer converts this bank to it",
    )


def has_tokenizer_json(tokenizer: Any) -> bool:
    """Whether `check_tokenizer` can compare a tokenizer, a processor or a `tokenizers.Tokenizer` with a bank."""
    return _backend(tokenizer) is not None


def load_tokenizer(place: str | Path) -> Any:
    """Load a tokenizer that `check_tokenizer` takes, without a network.

    Args:
        place: a tokenizer.json, a folder with one, or a model's name in the local cache of Hugging Face.

    Raises:
        InputNotFoundError: there is none.
    """
    tokenizer_class = require("tokenizers", "trainers").Tokenizer
    path = local_path(Path(place), "tokenizer")
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise InputNotFoundError(f"{path} has no tokenizer.json", "give the folder of the model's tokenizer")
    return tokenizer_class.from_file(str(file))


def _backend(tokenizer: Any) -> Any:
    """The `tokenizers.Tokenizer` of a fast tokenizer or a processor; None for others, such as a slow tokenizer."""
    for candidate in (tokenizer, getattr(tokenizer, "tokenizer", None)):  # a processor has .tokenizer
        backend = getattr(candidate, "backend_tokenizer", candidate)
        if hasattr(backend, "to_str"):
            return backend
    return None


def _is_padding(bank: Bank, token_id: int) -> bool:
    """Whether an id is after a bank's last one, or has no bytes and no vector in the bank."""
    if token_id >= bank.vocab.size:
        return True
    return not bank.vocab.token(token_id) and not bank.vectors(slice(token_id, token_id + 1)).any()
