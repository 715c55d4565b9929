"""Plain lists: one token or class label on each line. Its id is the line number, counted from 0."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import TokenizerError
from costbank.files import sha256_file, text_lines
from costbank.tokenizers.added_tokens import VocabEntry, add_tokens, read_settings, vocab_of_entries
from costbank.tokenizers.base import flatten
from costbank.vocab import TokenStatus

__all__ = ["PlainTokenizer"]

_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Z]+\]")
_TOKEN_AND_NUMBER = re.compile(r"[^\t]+\t-?\d+(\.\d+)?([eE][-+]?\d+)?")
_UNKNOWN = ("<unk>", "[UNK]", "<UNK>")


class PlainTokenizer:
    """A list of tokens as a `costbank.tokenizers.Tokenizer` that splits texts at whitespace.

    Lines such as `<pad>` or `[UNK]` are special. Files next to a model's vocab.txt may list added tokens.

    Attributes:
        unknown: the token for words that are not in the list: `<unk>` or `[UNK]` if the list has that line, else None.

    Raises:
        CorpusError: the file is not UTF-8 text.
        TokenizerError: a line is blank or repeated, or a file next to the list contradicts it.
    """

    kind = "list"
    libraries: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.file, self.sha256 = path.name, sha256_file(path).sha256
        self._path = path
        lines = text_lines(path)
        if len(lines) > 1 and all(_TOKEN_AND_NUMBER.fullmatch(line) for line in lines):
            raise TokenizerError(
                f"each line of {path} has a token, a tab and a number, but should have only a token",
                f"keep only the tokens: cut -f1 {shlex.quote(str(path))} > {shlex.quote(path.stem + '.tokens.txt')}, "
                "and read that file with --set tokenizer_kind=list; if this is a SentencePiece .vocab file, give its "
                ".model file instead",
            )
        self._ids: dict[str, int] = {}
        for token_id, line in enumerate(lines):
            if not line or line in self._ids:
                why = "is blank" if not line else f"repeats line {self._ids[line] + 1}: {line[:40]!r}"
                raise TokenizerError(f"{path} line {token_id + 1} {why}", "give a list with one token on each line")
            self._ids[line] = token_id
        entries = [
            VocabEntry(line, line.encode(), TokenStatus.SPECIAL if _SPECIAL.fullmatch(line) else TokenStatus.OK)
            for line in lines
        ]
        entries, self.added_ids = add_tokens(entries, read_settings(path), path, metaspace=False)
        self.vocab = vocab_of_entries(entries)
        self.unknown = next((name for name in _UNKNOWN if name in self._ids), None)

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return flatten([[self._id_of(word) for word in text.split()] for text in texts])

    def _id_of(self, word: str) -> int:
        token_id = self._ids.get(word, self._ids.get(self.unknown or ""))
        if token_id is None:
            raise TokenizerError(
                f"{word!r} is not in {self._path}", "add it to the list, or add a line <unk> for all unknown words"
            )
        return token_id
