"""Tokenizers, each behind one interface: what its ids stand for, and text to ids."""

from collections.abc import Callable
from pathlib import Path

from costbank.checkpoints import is_gguf
from costbank.errors import InputNotFoundError
from costbank.files import check_readable
from costbank.tokenizers.base import SamplingTokenizer, Tokenizer, TokenizerKind
from costbank.tokenizers.bytepiece import BytePieceTokenizer
from costbank.tokenizers.gguf import GGUFTokenizer
from costbank.tokenizers.huggingface import HuggingFaceTokenizer
from costbank.tokenizers.placeholders import placeholder_counts, placeholder_pattern
from costbank.tokenizers.plain import PlainTokenizer
from costbank.tokenizers.sentencepiece import SentencePieceTokenizer
from costbank.tokenizers.tiktoken import TiktokenTokenizer, is_tiktoken

__all__ = [
    "BytePieceTokenizer",
    "GGUFTokenizer",
    "HuggingFaceTokenizer",
    "PlainTokenizer",
    "SamplingTokenizer",
    "SentencePieceTokenizer",
    "TiktokenTokenizer",
    "Tokenizer",
    "TokenizerKind",
    "find_tokenizer",
    "load_tokenizer",
    "placeholder_counts",
    "placeholder_pattern",
]

_KINDS: dict[str, Callable[[Path], Tokenizer]] = {
    "sentencepiece": SentencePieceTokenizer,
    "huggingface": HuggingFaceTokenizer,
    "bytepiece": BytePieceTokenizer,
    "tiktoken": TiktokenTokenizer,
    "gguf": GGUFTokenizer,
    "list": PlainTokenizer,
}
_LIST_NAMES = ("vocab.txt", "labels.txt", "classes.txt")
_IN_MODEL_FOLDERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "*.tiktoken", "vocab.txt")
_HEAD_BYTES = 4096


def load_tokenizer(path: Path, kind: TokenizerKind = "auto") -> Tokenizer:
    """Read a tokenizer file, or the tokenizer of a model folder.

    Args:
        path: the file or folder.
        kind: its format; `auto` finds it from the content, and takes only files named vocab.txt, labels.txt or
            classes.txt for a plain list.

    Raises:
        InputNotFoundError: there is no such file, or none in the folder.
        TokenizerError: the file is no tokenizer of that kind, or of any kind.
    """
    path = find_tokenizer(path) if path.is_dir() else path
    check_readable(path, "tokenizer")
    return _KINDS[_kind_of(path) if kind == "auto" else kind](path)


def find_tokenizer(folder: Path) -> Path:
    """The tokenizer file of a model folder.

    Raises:
        InputNotFoundError: there is none.
    """
    for pattern in _IN_MODEL_FOLDERS:
        if found := sorted(folder.glob(pattern)):
            return found[0]
    raise InputNotFoundError(
        f"there is no tokenizer in the folder {folder}", f"name its file; looked for {', '.join(_IN_MODEL_FOLDERS)}"
    )


def _kind_of(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.lstrip().startswith(b"{"):
        whole = path.read_bytes()
        return "huggingface" if b'"added_tokens"' in whole and b'"model"' in whole else "bytepiece"
    if is_gguf(path):
        return "gguf"
    if path.name in _LIST_NAMES:
        return "list"
    return "tiktoken" if is_tiktoken(head) else "sentencepiece"
