"""Open a tokenizer file of any format, or the tokenizer of a model folder."""

import re
from collections.abc import Callable
from pathlib import Path

from costbank.checkpoints import is_gguf
from costbank.encodings import without_mark
from costbank.errors import InputNotFoundError, TokenizerError
from costbank.files import check_readable
from costbank.hub import local_path
from costbank.tokenizers.added_tokens import MODEL_FOLDER_NAMES
from costbank.tokenizers.base import Tokenizer
from costbank.tokenizers.bytepiece import BytePieceTokenizer
from costbank.tokenizers.gguf import GGUFTokenizer
from costbank.tokenizers.huggingface import HuggingFaceTokenizer
from costbank.tokenizers.kinds import TokenizerKind
from costbank.tokenizers.plain import PlainTokenizer
from costbank.tokenizers.sentencepiece import SentencePieceTokenizer
from costbank.tokenizers.tekken import TekkenTokenizer
from costbank.tokenizers.tiktoken import TiktokenTokenizer, is_tiktoken
from costbank.tokenizers.vocab_merges import VocabMergesTokenizer, merges_path
from costbank.tokenizers.wordpiece import WordPieceTokenizer, is_wordpiece

__all__ = ["find_tokenizer", "load_tokenizer"]

_KINDS: dict[str, Callable[[Path], Tokenizer]] = {
    "sentencepiece": SentencePieceTokenizer,
    "huggingface": HuggingFaceTokenizer,
    "bytepiece": BytePieceTokenizer,
    "tiktoken": TiktokenTokenizer,
    "tekken": TekkenTokenizer,
    "vocab-merges": VocabMergesTokenizer,
    "gguf": GGUFTokenizer,
    "wordpiece": WordPieceTokenizer,
    "list": PlainTokenizer,
}
_LIST_NAMES = ("vocab.txt", "labels.txt", "classes.txt")
_TEXT_TO_ID = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*-?\d')
_HEAD_BYTES = 4096


def load_tokenizer(path: str | Path, kind: TokenizerKind = "auto") -> Tokenizer:
    """Read a tokenizer file, or the tokenizer of a model folder.

    Args:
        path: the file or folder, or `org/name[@revision]` of a model in the local cache of Hugging Face.
        kind: its format. `auto` detects it from the content; only files named vocab.txt, labels.txt or classes.txt
            are then read as WordPiece or a plain list.

    Raises:
        InputNotFoundError: the file does not exist, or the folder has no tokenizer.
        TokenizerError: the file is not a tokenizer of that format or of any other, or the folder has several.
    """
    path = local_path(Path(path), "tokenizer")
    path = find_tokenizer(path) if path.is_dir() else path
    check_readable(path, "tokenizer")
    return _KINDS[_detect_kind(path) if kind == "auto" else kind](path)


def find_tokenizer(folder: Path) -> Path:
    """The tokenizer file of a model folder.

    Raises:
        InputNotFoundError: the folder has none.
        TokenizerError: the folder has several that differ, and none is a tokenizer.json.
    """
    files = [file for pattern in MODEL_FOLDER_NAMES for file in sorted(folder.glob(pattern))]
    complete = [file for file in files if file.name != "vocab.json" or merges_path(file).is_file()]
    if not (candidates := complete or files):
        raise InputNotFoundError(
            f"there is no tokenizer in the folder {folder}",
            f"give the tokenizer's file; these names were looked for: {', '.join(MODEL_FOLDER_NAMES)}",
        )
    first = candidates[0]
    if first.name != "tokenizer.json" and any(not _same_content(first, other) for other in candidates[1:]):
        raise TokenizerError(
            f"the folder {folder} has several tokenizers: {', '.join(file.name for file in candidates)}",
            "choose the one that belongs to the model with --tokenizer FILE",
        )
    return first


def _same_content(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def _detect_kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    head = without_mark(head)
    if head.lstrip().startswith(b"{"):
        return _detect_json_kind(path, head)
    if is_gguf(path):
        return "gguf"
    if path.name in _LIST_NAMES:
        return "wordpiece" if is_wordpiece(path) else "list"
    if path.suffix == ".json":  # damaged, or in another encoding: the reader reports what is wrong
        return "huggingface"
    if path.name.endswith("merges.txt"):
        return "vocab-merges"
    return "tiktoken" if is_tiktoken(head) else "sentencepiece"


def _detect_json_kind(path: Path, head: bytes) -> str:
    content = path.read_bytes()
    if b'"added_tokens"' in content and b'"model"' in content:
        return "huggingface"
    if b'"token_bytes"' in content and b'"default_vocab_size"' in content:
        return "tekken"
    if _TEXT_TO_ID.match(head):
        return "vocab-merges"
    return "huggingface" if path.name == "tokenizer.json" else "bytepiece"
