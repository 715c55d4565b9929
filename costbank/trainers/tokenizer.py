"""Whether a bank is for the tokenizer that a model is trained with."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

from costbank.bank import Bank
from costbank.errors import TokenizerError, UsageError
from costbank.tokenizers import HuggingFaceTokenizer

__all__ = ["check_tokenizer", "has_tokenizer_json"]

_MOST_SHOWN = 5


def check_tokenizer(bank: Bank, tokenizer: Any) -> None:
    """Check that each id of a Hugging Face tokenizer stands for the same bytes in the bank, and that none is missing.

    Ids that stand for nothing, the padding of a head, may be more on either side. Tokens that were added past the
    bank's last row (Gemma 3's image token, `tokenizer.add_tokens`), or on ids that are padding in the bank, are
    accepted with a warning: they cost 1 to every token.

    Args:
        bank: the bank to train with.
        tokenizer: a fast tokenizer of transformers, a processor that holds one, or a `tokenizers.Tokenizer`.

    Raises:
        UsageError: it is neither.
        TokenizerError: ids differ; how many, and the first of them, are named.
    """
    backend = _backend(tokenizer)
    if backend is None:
        raise UsageError(
            f"{type(tokenizer).__name__} has no tokenizer.json to compare with the bank",
            "give a fast tokenizer of transformers",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(backend.to_str(), encoding="utf-8")
        read = HuggingFaceTokenizer(path)
    vocab = read.vocab
    ids = range(max(vocab.size, bank.vocab.size))
    pairs = [[v.token(i) if i < v.size else b"" for v in (vocab, bank.vocab)] for i in ids]
    differing = [i for i, (one, other) in enumerate(pairs) if one != other]
    added = [i for i in differing if i in read.added_ids and _stands_for_nothing(bank, i)]
    if added:
        shown = ", ".join(f"{i} ({vocab.display(i)})" for i in added[:_MOST_SHOWN])
        warnings.warn(
            f"the tokenizer has {len(added):,} added tokens that {bank.name}@{bank.id} has no vectors for: {shown}; "
            "they cost 1 to every token",
            stacklevel=2,
        )
        differing = sorted(set(differing).difference(added))
    if not differing:
        return
    shown = "; ".join(f"{i} is {pairs[i][0]!r}, in the bank {pairs[i][1]!r}" for i in differing[:_MOST_SHOWN])
    raise TokenizerError(
        f"{len(differing):,} of {len(ids):,} ids differ between the tokenizer ({vocab.size:,} ids) and "
        f"{bank.name}@{bank.id} ({bank.vocab.size:,}): {shown}",
        "take the bank of this tokenizer, or make one: costbank build --source transfer carries this bank to it",
    )


def has_tokenizer_json(tokenizer: Any) -> bool:
    """Whether `check_tokenizer` can compare a tokenizer, a processor or a `tokenizers.Tokenizer` with a bank."""
    return _backend(tokenizer) is not None


def _backend(tokenizer: Any) -> Any:
    """The `tokenizers.Tokenizer` that something is or holds; None where it has none, as a slow tokenizer."""
    for one in (tokenizer, getattr(tokenizer, "tokenizer", None)):  # a processor's
        backend = getattr(one, "backend_tokenizer", one)
        if hasattr(backend, "to_str"):
            return backend
    return None


def _stands_for_nothing(bank: Bank, token: int) -> bool:
    """Whether an id is past a bank's last, or padding: it has no bytes there, and no vector."""
    return token >= bank.vocab.size or (not bank.vocab.token(token) and not bank.vectors(slice(token, token + 1)).any())
