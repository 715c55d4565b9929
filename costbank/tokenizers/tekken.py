"""tekken.json, Mistral's tokenizer: ranks as tiktoken has them, after the special tokens.

The first ids are the special tokens'; a token's id is its rank plus their number. The file may hold more ranks than the
model has: what lies past its stated size has no id. A special token without a name is called <SPECIAL_N>.
"""

import base64
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import TokenizerError
from costbank.files import sha256_file
from costbank.tokenizers.base import encode_threads, joined, status_of_bytes
from costbank.tokenizers.markup import is_markup
from costbank.tokenizers.placeholders import vocab_of
from costbank.tokenizers.tiktoken import encoding_of
from costbank.vocab import TokenStatus

__all__ = ["TekkenTokenizer"]

_BEFORE_VERSION_8 = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
"""The special tokens of files that do not list any, as those before version 8 of the format do not."""


class TekkenTokenizer:
    """A tekken.json behind the interface of `costbank.tokenizers.Tokenizer`.

    Attributes:
        pattern: how text is split before merging, in the syntax of tiktoken.
        ranks: the id of each token that is not special.

    Raises:
        TokenizerError: the file is not a tekken.json, or its numbers contradict each other.
    """

    kind = "tekken"
    libraries: tuple[str, ...] = ("tiktoken",)
    added_ids: frozenset[int] = frozenset()

    def __init__(self, path: Path) -> None:
        self.file, self.sha256 = path.name, sha256_file(path).sha256
        try:
            content = json.loads(path.read_bytes())
            self.pattern = str(content["config"]["pattern"])
            self._inner, special = _inner_ranks(content), _special(content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise TokenizerError(
                f"{path} cannot be read as a tekken.json: {what}", "download it again, or name another tokenizer"
            ) from None
        self._offset = len(special)
        self.ranks = {token: rank + self._offset for token, rank in self._inner.items()}
        tokens = [text.encode() for text, _ in special] + list(self._inner)
        status = [TokenStatus.SPECIAL if marks else TokenStatus.OK for _, marks in special]
        self.vocab = vocab_of(tokens, [*status, *map(status_of_bytes, self._inner)])

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        ids, ends = joined(self._encoding.encode_ordinary_batch(list(texts), num_threads=encode_threads()))
        return ids + self._offset, ends

    @cached_property
    def _encoding(self) -> Any:
        return encoding_of(self.pattern, self._inner)


def _inner_ranks(content: dict[str, Any]) -> dict[bytes, int]:
    """The tokens that have ids, in the order of ranks. The file may list more than that."""
    config, listed = content["config"], content["vocab"]
    size, special = int(config["default_vocab_size"]), int(config["default_num_special_tokens"])
    wanted = size - special
    ranks: dict[bytes, int] = {}
    for token in sorted(listed, key=lambda token: int(token["rank"]))[: max(wanted, 0)]:
        if int(token["rank"]) != len(ranks):
            raise ValueError(f"rank {len(ranks)} is missing, or a token or rank is there twice")
        ranks[base64.b64decode(token["token_bytes"], validate=True)] = int(token["rank"])
    if not 256 <= wanted == len(ranks):
        raise ValueError(
            f"its size is {size:,} with {special:,} special tokens, and it has {len(ranks):,} other tokens for that"
        )
    return ranks


def _special(content: dict[str, Any]) -> list[tuple[str, bool]]:
    """Text of each special token, and whether it marks up a text."""
    number, listed = int(content["config"]["default_num_special_tokens"]), content.get("special_tokens")
    names = {number: (name, True) for number, name in enumerate(_BEFORE_VERSION_8)} if listed is None else {}
    for token in listed or ():
        text, rank = str(token["token_str"]), int(token["rank"])
        if rank in names:
            raise ValueError(f"the special tokens {names[rank][0]} and {text} have one rank, {rank}")
        names[rank] = (text, bool(token.get("is_control", True)) or is_markup(text))
    if listed and (outside := [rank for rank in names if not 0 <= rank < number]):
        raise ValueError(f"the special token {names[outside[0]][0]} has rank {outside[0]}, of {number} special tokens")
    return [names.get(rank, (f"<SPECIAL_{rank}>", True)) for rank in range(number)]
