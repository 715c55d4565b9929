"""The targets that the recommended loss gives to labels, from what PyTorch's loss package chose for a bank."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float32, Float64

from costbank.bank import LoadedBank
from costbank.errors import UsageError, require
from costbank_service.answers import Entries, token_facts
from costbank_service.bank_cache import BankTooLargeError

__all__ = ["LabelTargets", "TargetCache", "longest_matches"]

_MOST_BANKS = 16
_MOST_UNMATCHED = 32


@dataclass(frozen=True)
class LabelTargets:
    """How `EMOLoss(bank)` softens labels.

    The target of label t is (1 − w) on t and w · q on the others, q_i ∝ u_i exp(−c(i, t) / T), as in
    `costbank.loss.SmoothingOptions`.

    Attributes:
        loss: the objective.
        weight: w.
        temperature: T, in units of cost.
        factors: u_i; 0 for tokens that are in no target but their own.
        softened: whether a label gives a share to other tokens.
        least_sum: with a smaller sum of u exp(−c / T) over the others, a label keeps its whole share.
    """

    loss: str
    weight: float
    temperature: float
    factors: Float32[np.ndarray, "vocab"]
    softened: Bool[np.ndarray, "vocab"]
    least_sum: float

    @classmethod
    def of(cls, bank: LoadedBank) -> "LabelTargets":
        """Choose T as the loss does; this reads all vectors.

        Raises:
            MissingDependencyError: PyTorch is not installed.
            UsageError: no token of the bank can be softened.
        """
        torch = require("torch", "train")
        from costbank.loss import EMOOptions, open_smoothing
        from costbank.loss.costs import LEAST_SUM, DenseSmoothing

        torch.set_num_threads(1)
        options = EMOOptions.preset("recommended")
        smoothing = cast(DenseSmoothing, open_smoothing(bank))  # over all tokens, as k is None by default
        weight = cast(float, options.weight)  # the preset has no schedule
        factors, softened = smoothing.factors.numpy(), smoothing.softened.numpy()
        return cls(options.objective, weight, smoothing.temperature, factors, softened, LEAST_SUM)

    def others(self, label: int, costs: Float32[np.ndarray, "vocab"]) -> Float64[np.ndarray, "vocab"]:
        """The shares of all tokens but the label in its target; they sum to w, or to 0 if it is not softened."""
        shares = self.factors * np.exp(-costs.astype(np.float64) / self.temperature)
        shares[label] = 0.0
        total = shares.sum()
        if not self.softened[label] or total <= self.least_sum:
            return np.zeros_like(shares)
        return shares * (self.weight / total)

    def entry(self, bank: LoadedBank, label: int, costs: Float32[np.ndarray, "vocab"], k: int) -> dict[str, Any]:
        """The target of a label, with the k largest shares of other tokens, as `schemas.LabelTarget`."""
        shares = self.others(label, costs)
        total = float(shares.sum())
        largest = np.argsort(-shares, kind="stable")[:k]
        largest = largest[shares[largest] > 0]
        listed: Entries = [
            {"id": int(i), "text": bank.vocab.texts[int(i)], "cost": costs[i], "share": float(shares[i])}
            for i in largest
        ]
        known = shares[shares > 0] / total if total else shares[:0]
        return {
            "token": token_facts(bank, label), "softened": total > 0, "label_share": 1.0 - total, "others": listed,
            "rest": max(0.0, total - float(shares[largest].sum())),
            "perplexity": float(np.exp(-(known * np.log(known)).sum())) if total else None,
        }  # fmt: skip


class TargetCache:
    """The `LabelTargets` of the banks asked for most recently. Each bank's are made once, one bank at a time."""

    def __init__(self, max_bytes: int, make: Callable[[LoadedBank], LabelTargets] = LabelTargets.of) -> None:
        self._max_bytes = max_bytes
        self._make = make
        self._executor = ThreadPoolExecutor(1, "costbank-targets")
        self._tasks: OrderedDict[str, asyncio.Future[LabelTargets]] = OrderedDict()

    async def of(self, bank: LoadedBank) -> LabelTargets:
        """The targets of a bank. If the request ends meanwhile, they are made all the same, for the next one.

        Raises:
            BankTooLargeError: the bank's vectors would take more memory than the service may use.
            MissingExtraError, UsageError: see `LabelTargets.of`.
        """
        size = 4 * bank.size * bank.dim
        if size > self._max_bytes:
            raise BankTooLargeError(
                f"the bank's vectors take {size >> 20:,} MB, but this service may use {self._max_bytes >> 20:,} MB",
                "start the service with a larger $COSTBANK_MAX_MEMORY_MB",
            )
        task = self._tasks.get(bank.id)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.get_running_loop().run_in_executor(self._executor, self._make, bank)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is raised below, if at all
            self._tasks[bank.id] = task
            while len(self._tasks) > _MOST_BANKS:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(bank.id)
        return await asyncio.shield(task)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def longest_matches(bank: LoadedBank, text: str, most: int) -> tuple[list[int], bytes]:
    """Split a text into the longest tokens, from left to right.

    Of the text and the text after a space, the split with fewer tokens counts, and the second if they have equally
    many: words inside a text start with a space.

    Args:
        bank: its vocabulary gives the tokens; special tokens are not in text.
        text: bytes that are not UTF-8 are surrogates, as in query strings.
        most: the largest number of tokens.

    Returns:
        The ids, and the bytes that are in no token.

    Raises:
        UsageError: the text has more tokens, or many bytes that are in no token.
    """
    data = text.encode("utf-8", "surrogateescape")
    splits = [_split(bank, start + data, most) for start in (b" ", b"")]
    ids, unmatched = min(splits, key=lambda split: (len(split[1]), len(split[0])))
    if len(unmatched) > _MOST_UNMATCHED:
        raise UsageError(f"more than {_MOST_UNMATCHED} bytes of the text are in no token", "use another text")
    if len(ids) > most:
        raise UsageError(f"the text has more than {most} tokens", "use a shorter text")
    return ids, unmatched


def _split(bank: LoadedBank, data: bytes, most: int) -> tuple[list[int], bytes]:
    vocab, ids, unmatched, start = bank.vocab, list[int](), bytearray(), 0
    while start < len(data) and len(ids) <= most and len(unmatched) <= _MOST_UNMATCHED:
        for end in range(min(len(data), start + vocab.longest), start, -1):
            token = next((i for i in vocab.ids_of(data[start:end]) if vocab.ordinary[i]), None)
            if token is not None:
                ids.append(token)
                start = end
                break
        else:
            unmatched.append(data[start])
            start += 1
    return ids, bytes(unmatched)
