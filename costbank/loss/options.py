"""How an EMO loss is put together: one frozen object, given once."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from costbank.errors import UsageError

__all__ = ["EMOOptions", "Mixing", "Reduction"]

Mixing = Literal["fixed", "emo1", "emo1_clamped", "emo2"]
Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True)
class EMOOptions:
    """Options of `emo_loss` and `EMOLoss`.

    With CE the cross-entropy of a token and K its expected cost, and sg stopping the gradient, `mixing` is

    - `fixed`: CE + weight · K;
    - `emo1`: ½ (CE + sg(CE / (K + 1e-10)) · K), as in the paper; its value is CE, whatever K does;
    - `emo1_clamped`: the same with the ratio at most 3, so that no token's gradient explodes where K is tiny. The
      default, as in the published package;
    - `emo2`: sg(K / (CE + 1e-10)) · CE + K; its value is 2 K.

    Attributes:
        mixing: see above.
        weight: of K, for `fixed` only.
        ignore_index: labels of this value count for nothing; any integer, inside the vocabulary or not.
        reduction: `mean` over the tokens that are not ignored, `sum`, or `none`: a loss for each token.

    Raises:
        UsageError: a value is none of those.
    """

    mixing: Mixing = "emo1_clamped"
    weight: float = 1.0
    ignore_index: int = -100
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        for name, kind in (("mixing", Mixing), ("reduction", Reduction)):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise UsageError(f"{name} is {value!r}", f"give one of: {', '.join(get_args(kind))}")
        if not (isinstance(self.weight, int | float) and math.isfinite(self.weight) and self.weight >= 0):
            raise UsageError(f"weight is {self.weight!r}", "give a finite number of 0 or more")
