"""Tokenizers, each behind one interface: what its ids stand for, and text to ids."""

from pathlib import Path

from costbank.files import check_readable
from costbank.tokenizers.base import Tokenizer
from costbank.tokenizers.sentencepiece import SentencePieceTokenizer

__all__ = ["SentencePieceTokenizer", "Tokenizer", "load_tokenizer"]


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer file; its kind is found from its content.

    Raises:
        InputNotFoundError: there is no such file.
        TokenizerError: the file is no tokenizer of a kind that costbank reads.
    """
    check_readable(path, "tokenizer")
    return SentencePieceTokenizer(path)
