"""Open the tokenizer that a bank was built with: a bank has its tokens, but not the rules that split text into them."""

from pathlib import Path

from costbank.bank import Bank
from costbank.errors import TokenizerError
from costbank.hub import local_path
from costbank.tokenizers.base import Tokenizer
from costbank.tokenizers.opening import find_tokenizer, load_tokenizer

__all__ = ["tokenizer_of_bank"]


def tokenizer_of_bank(bank: Bank, path: Path) -> tuple[Tokenizer, Path]:
    """Read a tokenizer, check that it is the bank's, and return it with the path of its file.

    Args:
        bank: the bank, with the fingerprint of its tokenizer.
        path: the tokenizer's file, a model folder with one, or `org/name` in the local cache of Hugging Face.

    Raises:
        InputNotFoundError: the file does not exist, or the folder has no tokenizer.
        TokenizerError: the fingerprint differs.
    """
    expected = bank.manifest.tokenizer
    path = local_path(path, "tokenizer")
    path = find_tokenizer(path) if path.is_dir() else path
    tokenizer = load_tokenizer(path, "list" if expected.kind == "list" else "auto")
    if tokenizer.vocab.fingerprint != expected.fingerprint:
        raise TokenizerError(
            f"{path} is not the tokenizer of this bank: its fingerprint is {tokenizer.vocab.fingerprint[:16]}…, "
            f"and the bank's is {expected.fingerprint[:16]}…",
            f"give the tokenizer that the bank was built with: {expected.file} ({expected.kind})",
        )
    return tokenizer, path
