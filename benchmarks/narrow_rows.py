"""How much rows of costs in 16 and 8 bits change the costs: `python -m benchmarks narrow_rows`.

The rows have 64 strong directions, and noise in all 1,024, as those of a head. Low-rank costs are compared with those
in float32, so that the error is that of the type alone.
"""

import torch
from torch.nn import functional

from benchmarks.record import record
from costbank.loss import DenseCosts, LowRankCosts

__all__ = ["run"]

_ROWS, _DIM, _RANK, _SAMPLE = 20_000, 1_024, 64, 2_048


def run() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(*shape, generator=generator) for shape in ((_ROWS, 64), (64, _DIM)))
    head = left @ right / 8 + torch.randn(_ROWS, _DIM, generator=generator)
    dense = DenseCosts(functional.normalize(head, dim=1))
    for name, costs in (("dense", dense), (f"low-rank {_RANK}", LowRankCosts.project(dense, _RANK))):
        exact = _costs(costs)
        for dtype in (torch.bfloat16, torch.float8_e4m3fn):
            changes = (_costs(costs.to(dtype=dtype)) - exact).abs()
            note = f"{_ROWS:,} x {_DIM:,} rows, {str(dtype).removeprefix('torch.')}, pairs of {_SAMPLE:,} of them"
            mean = float(changes.sum()) / (_SAMPLE * (_SAMPLE - 1))
            record(
                "narrow_rows", f"{name}: largest change of a cost", "cost", [float(changes.max())], "", ("torch",), note
            )
            record("narrow_rows", f"{name}: mean change of a cost", "cost", [mean], "", ("torch",), note)


def _costs(costs: DenseCosts) -> torch.Tensor:
    rows = costs.wide(dtype=torch.float64)[:_SAMPLE]
    return (1 - rows @ rows.T).fill_diagonal_(0.0)
