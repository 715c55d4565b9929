"""What every form of costs has in common."""

from abc import abstractmethod
from copy import copy
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Self

import torch
from torch import Tensor

from costbank.errors import UsageError

__all__ = ["UNNAMED", "Costs", "check_type", "rounding", "same_pin"]

# Costs that are from no bank.
UNNAMED = "unnamed"


@dataclass(frozen=True, eq=False, kw_only=True)
class Costs:
    """Frozen costs c(i, t) of every token i where t is right. No tensor of theirs gets a gradient.

    Attributes:
        bank: name and id of the bank that they are from: what a checkpoint is pinned to.
    """

    bank: str = field(default=UNNAMED)

    @property
    @abstractmethod
    def form(self) -> str:
        """`dense`, `low-rank` or `neighbors`, as `open_costs` calls it."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many tokens have costs: the width of the logits that they are for."""

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def error(self) -> str:
        """How far the costs may be from the bank's, in words with numbers."""

    @property
    def pin(self) -> str:
        """What tells these costs from others: the bank's id, and what of it is used.

        Costs that are from no bank are told by a digest of their first tensor.
        """
        if self.bank != UNNAMED:
            return f"{self.bank} {self.form}"
        first = next(value for entry in fields(self) if isinstance(value := getattr(self, entry.name), Tensor))
        if first.device.type == "meta":
            return f"{self.bank} {self.form}"
        content = first.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        return f"{self.bank}@{sha256(content).hexdigest()[:16]} {self.form}"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same costs on another device, or with their vectors in another type.

        A type of 16 bits makes products of rows fast on accelerators, and costs wrong by up to 8e-3 (bfloat16). The
        cost of a token to itself stays 0 in any type: it is never computed.

        Raises:
            UsageError: the type is not a floating-point one.
        """
        check_type(dtype)
        # What was checked when it was made is not checked again.
        moved = copy(self)
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                value = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
                object.__setattr__(moved, entry.name, value)
        return moved

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.bank}: {self.vocab_size:,} tokens, {self.error}>"


def check_type(dtype: torch.dtype | None) -> None:
    """Check that costs may be had in a type.

    Raises:
        UsageError: they may not.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise UsageError(f"costs in {dtype}", "take a floating-point type, such as torch.bfloat16")


def rounding(values: Tensor, before: str = "") -> str:
    """What a type of 16 bits adds to an error, in words; nothing for wider ones."""
    return "" if values.element_size() >= 4 else f"{before}rounded to {str(values.dtype).removeprefix('torch.')}"


def same_pin(one: str, other: str) -> bool:
    """Whether two pins are of the same costs: a bank keeps its id under any name."""
    return one.rpartition("@")[2] == other.rpartition("@")[2]
