"""tekken.json, Mistral's tokenizer: special tokens, followed by tokens with ranks as in tiktoken.

The id of an ordinary token is its rank plus the number of special tokens. The file may list more ranks than the model
has: those past the stated vocabulary size have no id. A special token without a name is called <SPECIAL_N>.
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
from costbank.tokenizers.base import byte_level_status, encode_threads, flatten
from costbank.tokenizers.markup import is_markup
from costbank.tokenizers.placeholders import build_vocab
from costbank.tokenizers.tiktoken import tiktoken_encoding
from costbank.vocab import TokenStatus

__all__ = ["TekkenTokenizer"]

_BEFORE_VERSION_8 = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
"""The special tokens of files that list none, as in versions of the format before 8."""


class TekkenTokenizer:
    """A tekken.json as a `costbank.tokenizers.Tokenizer`.

    Attributes:
        pattern: the expression that splits text before merging, in the syntax of tiktoken.
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
            self._own_ranks, special = _ranks(content), _special_tokens(content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise TokenizerError(
                f"{path} cannot be read as a tekken.json: {what}", "download it again, or give another tokenizer"
            ) from None
        self._offset = len(special)
        self.ranks = {token: rank + self._offset for token, rank in self._own_ranks.items()}
        tokens = [text.encode() for text, _ in special] + list(self._own_ranks)
        status = [TokenStatus.SPECIAL if markup else TokenStatus.OK for _, markup in special]
        self.vocab = build_vocab(tokens, [*status, *map(byte_level_status, self._own_ranks)])

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        ids, ends = flatten(self._encoding.encode_ordinary_batch(list(texts), num_threads=encode_threads()))
        return ids + self._offset, ends

    @cached_property
    def _encoding(self) -> Any:
        return tiktoken_encoding(self.pattern, self._own_ranks)


def _ranks(content: dict[str, Any]) -> dict[bytes, int]:
    """The rank of each ordinary token that has an id, in ascending order."""
    config, vocab = content["config"], content["vocab"]
    size, special = int(config["default_vocab_size"]), int(config["default_num_special_tokens"])
    ordinary = size - special
    ranks: dict[bytes, int] = {}
    for token in sorted(vocab, key=lambda token: int(token["rank"]))[: max(ordinary, 0)]:
        if int(token["rank"]) != len(ranks):
            raise ValueError(f"rank {len(ranks)} is missing, or a token or rank is repeated")
        ranks[base64.b64decode(token["token_bytes"], validate=True)] = int(token["rank"])
    if not 256 <= ordinary == len(ranks):
        raise ValueError(
            f"its vocabulary size is {size:,} with {special:,} special tokens, and it lists {len(ranks):,} other tokens"
        )
    return ranks


def _special_tokens(content: dict[str, Any]) -> list[tuple[str, bool]]:
    """The text of each special token by rank, and whether it is markup."""
    count, listed = int(content["config"]["default_num_special_tokens"]), content.get("special_tokens")
    tokens = {rank: (text, True) for rank, text in enumerate(_BEFORE_VERSION_8)} if listed is None else {}
    for token in listed or ():
        text, rank = str(token["token_str"]), int(token["rank"])
        if rank in tokens:
            raise ValueError(f"the special tokens {tokens[rank][0]} and {text} have the same rank, {rank}")
        tokens[rank] = (text, bool(token.get("is_control", True)) or is_markup(text))
    if listed and (outside := [rank for rank in tokens if not 0 <= rank < count]):
        raise ValueError(
            f"the special token {tokens[outside[0]][0]} has rank {outside[0]}, but there are {count} special tokens"
        )
    return [tokens.get(rank, (f"<SPECIAL_{rank}>", True)) for rank in range(count)]
