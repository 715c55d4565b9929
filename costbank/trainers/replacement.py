"""Replace some input tokens of a batch, by neighbors of a bank or by random tokens. Labels stay as they are.

A model that reads `the dog lay on the couch` and must predict the text of `the cat lay on the sofa` learns that these
words are alike. Random tokens, and tokens drawn by their frequency, are the controls: they show what noise alone does.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Integer
from torch import Tensor

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.vocab import TokenStatus

__all__ = ["TokenReplacement"]


class TokenReplacement:
    """A collator that replaces a share of the input tokens of another collator's batches.

    `TokenReplacement(bank, 0.15, collator=DataCollatorForLanguageModeling(tokenizer, mlm=False))` is a Trainer's
    `data_collator`. Special, unused and byte tokens, and positions that the attention mask excludes, are not replaced.

    Args:
        bank: the bank of the tokenizer; or for other replacements than neighbors, the number of tokens.
        share: the probability that a token is replaced, from 0 to 1.
        by: `neighbors`: one of the k nearest tokens, each equally likely; `random`: any token; `unigram`: any token, by
            its count.
        k: the number of neighbors to choose from.
        counts: [vocab], for `unigram`; default: the bank's.
        collator: makes the batch; None if batches are passed to `replace`.
        seed: of the random choices.

    Raises:
        UsageError: an argument is out of range, the bank has too few neighbors, or the counts are unknown.
    """

    def __init__(
        self,
        bank: Bank | int,
        share: float,
        *,
        by: Literal["neighbors", "random", "unigram"] = "neighbors",
        k: int = 8,
        counts: Tensor | None = None,
        collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= share <= 1:
            raise UsageError(f"share is {share}", "give a probability from 0 to 1, such as 0.15")
        if by not in ("neighbors", "random", "unigram"):
            raise UsageError(f"by is {by!r}", "give one of: neighbors, random, unigram")
        self.share, self.by, self.collator = share, by, collator
        self._generator = torch.Generator().manual_seed(seed)
        size = bank.size if isinstance(bank, Bank) else bank
        self._replaceable = torch.ones(size, dtype=torch.bool)
        if isinstance(bank, Bank):
            self._replaceable = torch.from_numpy(bank.vocab.status == TokenStatus.OK)
        self._neighbors = _neighbors(bank, k) if by == "neighbors" else None
        self._weights = self._replaceable.double()
        if by == "unigram":
            if counts is None and isinstance(bank, Bank):
                counts = torch.tensor(bank.vocab.counts)
            if counts is None or not bool((counts > 0).any()):
                raise UsageError("by='unigram' needs the counts of tokens", "give counts=, or a bank from a corpus")
            self._weights = self._weights * counts.clamp_min(0)

    def __call__(self, examples: list[Any]) -> dict[str, Any]:
        """The batch of the other collator, with some of its `input_ids` replaced."""
        if self.collator is None:
            raise UsageError("there is no collator to make batches", "give collator=, or call replace(input_ids)")
        batch = self.collator(examples)
        return {**batch, "input_ids": self.replace(batch["input_ids"], batch.get("attention_mask"))}

    def replace(
        self, ids: Integer[Tensor, "*batch"], mask: Integer[Tensor, "*batch"] | None = None
    ) -> Integer[Tensor, "*batch"]:
        """A copy of token ids, some of them replaced.

        Args:
            ids: token ids. Ids beyond the bank are not replaced.
            mask: 0 at positions that are not replaced.
        """
        known = (ids >= 0) & (ids < len(self._replaceable))
        chosen = torch.rand(ids.shape, generator=self._generator) < self.share
        chosen &= known & self._replaceable[torch.where(known, ids, 0)]
        if mask is not None:
            chosen &= mask != 0
        old = ids[chosen]
        return ids.masked_scatter(chosen, self._drawn(old).to(ids.dtype)) if len(old) else ids.clone()

    def _drawn(self, old: Integer[Tensor, "n"]) -> Integer[Tensor, "n"]:
        if self._neighbors is None:
            return torch.multinomial(self._weights, len(old), replacement=True, generator=self._generator)
        rows = self._neighbors[old]
        exists = rows >= 0
        # A token without neighbors stays as it is.
        order = torch.rand(rows.shape, generator=self._generator).masked_fill_(~exists, -1.0).argmax(dim=1)
        drawn = rows.gather(1, order[:, None])[:, 0]
        return torch.where(drawn >= 0, drawn, old)


def _neighbors(bank: Bank | int, k: int) -> Integer[Tensor, "vocab k"]:
    if not isinstance(bank, Bank):
        raise UsageError("by='neighbors' needs a bank", "give open_bank(name), or by='random'")
    if not 1 <= k <= bank.neighbors.k:
        raise UsageError(
            f"k is {k}, and the bank has {bank.neighbors.k} neighbors per token",
            "give a k that it has, or build it with neighbors: --set neighbors.k=64",
        )
    return torch.from_numpy(bank.neighbors.ids[:, :k].astype("int64"))
