"""Plain lists: one token or class label a line, whose line number from 0 on is its id."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import TokenizerError
from costbank.files import sha256_file, text_lines
from costbank.tokenizers.added_tokens import Entry, read_settings, with_added
from costbank.tokenizers.base import joined
from costbank.tokenizers.placeholders import vocab_of
from costbank.vocab import TokenStatus

__all__ = ["PlainTokenizer"]

_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Z]+\]")
_COUNTED = re.compile(r"[^\t]+\t-?\d+(\.\d+)?([eE][-+]?\d+)?")
_UNKNOWN = ("<unk>", "[UNK]", "<UNK>")


class PlainTokenizer:
    """A list behind the interface of `costbank.tokenizers.Tokenizer`: whitespace separates the tokens of a text.

    Lines such as `<pad>` or `[UNK]` are special. Words that are not in the list become `unknown`, which is `<unk>` or
    `[UNK]` where the list has that line, else None. Tokens that were added to a model's vocab.txt are read from the
    files next to it.

    Raises:
        CorpusError: the file is not UTF-8 text.
        TokenizerError: a line is blank or stands twice, or a file next to it contradicts it.
    """

    kind = "list"
    libraries: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.file, self.sha256 = path.name, sha256_file(path).sha256
        self._path = path
        lines = text_lines(path)
        counted = sum(_COUNTED.fullmatch(line) is not None for line in lines)
        if counted == len(lines) > 1:
            raise TokenizerError(
                f"each line of {path} holds a token, a tab and a number, and not a token alone",
                f"keep the tokens alone: cut -f1 {shlex.quote(str(path))} > {shlex.quote(path.stem + '.tokens.txt')}, "
                "and read them with --set tokenizer_kind=list; of a SentencePiece .vocab file, give its .model instead",
            )
        self._ids: dict[str, int] = {}
        for token_id, line in enumerate(lines):
            if not line or line in self._ids:
                why = "is blank" if not line else f"stands on line {self._ids[line] + 1} already: {line[:40]!r}"
                raise TokenizerError(
                    f"{path} line {token_id + 1} {why}", "a list of tokens has one on each line, each once"
                )
            self._ids[line] = token_id
        entries = [
            Entry(line, line.encode(), TokenStatus.SPECIAL if _SPECIAL.fullmatch(line) else TokenStatus.OK)
            for line in lines
        ]
        entries, self.added_ids = with_added(entries, read_settings(path), path, reads_spaces=False)
        self.vocab = vocab_of([entry.token for entry in entries], [entry.status for entry in entries])
        self.unknown = next((name for name in _UNKNOWN if name in self._ids), None)

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return joined([[self._id_of(word) for word in text.split()] for text in texts])

    def _id_of(self, word: str) -> int:
        token_id = self._ids.get(word, self._ids.get(self.unknown or ""))
        if token_id is None:
            raise TokenizerError(f"{word!r} is not in {self._path}", "add it, or a line <unk> for all such words")
        return token_id
