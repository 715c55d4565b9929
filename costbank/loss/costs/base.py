"""The base class of all forms of costs."""

from abc import abstractmethod
from copy import copy
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Self

import torch
from torch import Tensor

from costbank.errors import UsageError

__all__ = ["UNNAMED", "Costs", "check_type", "check_without_rows", "rounding", "same_pin"]

UNNAMED = "unnamed"
"""The value of `Costs.bank` for costs that do not come from a bank."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Costs:
    """Frozen costs c(i, t) of predicting token i where t is right. Their tensors get no gradients.

    Attributes:
        bank: name and id of the bank. A checkpoint is pinned to them.
    """

    bank: str = field(default=UNNAMED)

    @property
    @abstractmethod
    def form(self) -> str:
        """`dense`, `low-rank` or `neighbors`, as in `open_costs`."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The number of tokens, which is the width of the logits."""

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def error(self) -> str:
        """A description of the largest difference from the bank's costs."""

    @property
    def pin(self) -> str:
        """A text that identifies these costs: the bank, the form and its settings.

        Costs that do not come from a bank are identified by a digest of their first tensor.
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

        A 16-bit type makes products of rows fast on accelerators, but costs then have an error of up to 8e-3
        (bfloat16). The cost of a token to itself is 0 in any type, because it is never computed. Dense and low-rank
        costs can have rows in `torch.float8_e4m3fn`, with a scale for each row in float32: see `DenseCosts.to`.

        Raises:
            UsageError: costs of this form cannot have this type, or the device does not have it.
        """
        check_type(dtype, device)
        check_without_rows(self.form, dtype)
        # A copy skips the checks in __post_init__.
        moved = copy(self)
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                value = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
                object.__setattr__(moved, entry.name, value)
        return moved

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.bank}: {self.vocab_size:,} tokens, {self.error}>"


def check_type(dtype: torch.dtype | None, device: torch.device | str | None = None) -> None:
    """Check that costs can have this type on a device.

    Raises:
        UsageError: it is not a floating-point type, another 8-bit type than `torch.float8_e4m3fn`, or one that the
            device does not have.
    """
    if dtype is None:
        return
    if not dtype.is_floating_point:
        raise UsageError(f"costs cannot be {dtype}", "use a floating-point type, such as torch.bfloat16")
    if dtype.itemsize == 1 and dtype != torch.float8_e4m3fn:
        raise UsageError(f"costs cannot be {dtype}", "use torch.float8_e4m3fn, or a wider type, such as torch.bfloat16")
    if device is not None:
        _check_device(dtype, torch.device(device))


def check_without_rows(form: str, dtype: torch.dtype | None) -> None:
    """Check that costs that are numbers, and not rows, can have this type.

    Raises:
        UsageError: it has 8 bits.
    """
    if dtype is not None and dtype.itemsize == 1:
        raise UsageError(
            f"{form} costs without rows cannot be {dtype}",
            "use torch.bfloat16; or dense or low-rank costs, or smoothing over all tokens without draws",
        )


def _check_device(dtype: torch.dtype, device: torch.device) -> None:
    number = torch.ones(1, device=device)  # without the device, PyTorch says so
    try:
        number.to(dtype).to(torch.float32)
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"costs cannot be {dtype} on the device {device}: {reason}",
            "use another type, such as torch.float32, or another device",
        ) from error


def rounding(values: Tensor, before: str = "") -> str:
    """A note on the rounding of a 16-bit type for `Costs.error`; empty for wider types."""
    return "" if values.element_size() >= 4 else f"{before}rounded to {str(values.dtype).removeprefix('torch.')}"


def same_pin(one: str, other: str) -> bool:
    """Whether two pins identify the same costs. The name of a bank may differ; its id does not."""
    return one.rpartition("@")[2] == other.rpartition("@")[2]
