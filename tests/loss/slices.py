"""A small head cut into slices, and a comparison of the slices' losses with the loss of the whole head."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional

from costbank.errors import CostbankError
from costbank.loss import (
    Costs,
    DenseCosts,
    EMOOptions,
    LowRankCosts,
    NeighborCosts,
    SmoothingOptions,
    emo_loss,
    linear_emo_loss_with_parts,
    parallel_emo_loss,
    parallel_linear_emo_loss_with_parts,
    smooth_dense,
    smooth_neighbors,
)

VOCAB, TOKENS, DIM = 37, 29, 11
CUTS = {2: ((19, 18), (36, 1), (1, 36)), 4: ((10, 9, 9, 9), (1, 20, 1, 15))}
HALF = {"mixing": "fixed", "weight": 0.5}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "emo": ({}, "dense"),
    "emo1-low-rank": ({"mixing": "emo1"}, "low-rank"),
    "emo2-neighbors": ({"mixing": "emo2"}, "neighbors"),
    "pure-neighbors": ({"mixing": "interpolate", "weight": 1.0}, "neighbors"),
    "pure": ({"mixing": "interpolate", "weight": 1.0}, "dense"),
    "mass": ({"target_mass": "detached", **HALF}, "dense"),
    "delta": ({"objective": "delta", **HALF}, "none"),
    "delta-emo1": ({"objective": "delta"}, "none"),
    "ce": ({"objective": "ce"}, "none"),
    "tailr": ({"objective": "tailr", "tailr_gamma": 0.3, "tailr_least": 0.2}, "none"),
    "mixce": ({"objective": "mixce", "mixce_ratio": 0.3}, "none"),
    "softcap": ({"softcap": 4.0}, "dense"),
    "cool": ({"temperature": 0.6}, "dense"),
    "z-loss": ({"z_loss": 1e-2}, "neighbors"),
    "log": ({"objective": "log", **HALF}, "dense"),
    "pure-log": ({"objective": "log", "mixing": "interpolate", "weight": 1.0, "log_power": 2.5}, "low-rank"),
    "log-neighbors": ({"objective": "log", "temperature": 1.7, **HALF}, "neighbors"),
    "neighbor-smoothing": (
        {"objective": "neighbor_smoothing", "mixing": "interpolate", "weight": 0.3, "temperature": 0.7},
        "smoothing",
    ),
    "smoothing-of-all": (
        {"objective": "neighbor_smoothing", "mixing": "interpolate", "weight": 0.3, "softcap": 4.0},
        "smoothing-of-all",
    ),
    "gated": ({"objective": "neighbor_smoothing", **HALF, "entropy_gate": 6.0}, "smoothing-of-all"),
    "gated-neighbors": ({"objective": "emo", **HALF, "entropy_gate": 20.0, "temperature": 1.4}, "neighbors"),
    "kernel": ({"objective": "kernel", **HALF}, "dense"),
    "d2gpo": ({"objective": "d2gpo", "mixing": "interpolate", "weight": 0.3}, "neighbors"),
    "smoothed": ({"label_smoothing": 0.1}, "dense"),
    "smoothed-smoothing": (
        {"objective": "neighbor_smoothing", "label_smoothing": 0.1, "temperature": 0.8, **HALF},
        "smoothing-of-all",
    ),
    "smoothed-ce": ({"objective": "ce", "label_smoothing": 0.2}, "none"),
    "all": ({"z_loss": 1e-2, "softcap": 5.0, "temperature": 1.3, **HALF}, "dense"),
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@cache
def forms() -> dict[str, Costs | None]:
    rows = functional.normalize(torch.randn(VOCAB, 6, generator=seeded()), dim=1)
    rows[[4, 9]] = 0
    dense = DenseCosts(rows)
    near, ids = dense.rows(torch.arange(VOCAB)).fill_diagonal_(torch.inf).topk(8, largest=False)
    neighbors = NeighborCosts.from_table(dense, ids, near, measure=True)
    smoothing = smooth_neighbors(neighbors.ids, neighbors.costs, SmoothingOptions(k=8, perplexity=4.0))
    of_all = smooth_dense(dense, SmoothingOptions(perplexity=9.0))
    return {
        "dense": dense, "low-rank": LowRankCosts.project(dense, 3), "neighbors": neighbors, "smoothing": smoothing,
        "smoothing-of-all": of_all,
        "none": None,
    }  # fmt: skip


def data(dtype: torch.dtype, scale: float = 1.0) -> list[Tensor]:
    """Hidden states, weight, bias, labels with every fifth ignored, and weights of tokens."""
    g = seeded()
    hidden, weight = torch.randn(TOKENS, DIM, generator=g), scale * torch.randn(VOCAB, DIM, generator=g)
    bias, labels = torch.randn(VOCAB, generator=g), torch.randint(0, VOCAB, (TOKENS,), generator=g)
    labels[::5], labels[1], labels[2] = -100, 4, 9
    return [hidden.to(dtype), weight.to(dtype), bias.to(dtype), labels, torch.rand(TOKENS, generator=g).to(dtype)]


def own(sizes: tuple[int, ...]) -> slice:
    rank = distributed.get_rank()
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def close(ours: Tensor, theirs: Tensor, tolerance: float, what: object) -> None:
    error = (ours.double() - theirs.double()).abs().max() if ours.numel() else 0
    size = theirs.double().abs().max() if ours.numel() else 0
    assert ours.shape == theirs.shape, what
    assert ours.dtype == theirs.dtype, what
    assert error <= tolerance * (1 + size), (what, float(error), float(size))


def compare(options: EMOOptions, costs: Costs | None, sizes: tuple[int, ...], given: list[Any], tolerance: float,
            what: object, token_weights: Tensor | None = None, kernels: Any = "auto", **more: Any) -> None:  # fmt: skip
    """Compare values, parts and gradients of both functions with the whole head on one process.

    With `kernels`, the processes run on these, and the whole head as always.
    """
    of_slices = replace(options, kernels=kernels)
    hidden, weight, bias, labels = given[:4]
    mine = own(sizes)
    whole = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
    leaves = [t.clone().requires_grad_() for t in (hidden, weight[mine], bias[mine])]
    factor = torch.rand(labels.shape, generator=seeded()) if options.reduction == "none" else torch.tensor(1.7)

    expected = linear_emo_loss_with_parts(
        whole[0], whole[1], labels, costs, options, bias=whole[2], token_weights=token_weights
    )
    result = parallel_linear_emo_loss_with_parts(
        leaves[0], leaves[1], labels, costs, of_slices, bias=leaves[2], token_weights=token_weights, **more
    )
    close(result.loss, expected.loss, tolerance, what)
    for name, one, other in zip(result.parts._fields, result.parts, expected.parts, strict=True):
        assert torch.equal(one.isnan(), other.isnan()), (what, name)
        close(one.nan_to_num(), other.nan_to_num(), tolerance, (what, name))
    grads = torch.autograd.grad((factor * result.loss).sum(), leaves)
    rights = torch.autograd.grad((factor * expected.loss).sum(), whole)
    for name, one, other in zip(("hidden", "weight", "bias"), grads, rights, strict=True):
        close(one, other if name == "hidden" else other[mine], 5 * tolerance, (what, name))

    logits = functional.linear(hidden, weight, bias)
    full, part = logits.clone().requires_grad_(), logits[..., mine].clone().requires_grad_()
    of_full = emo_loss(full, labels, costs, options, token_weights=token_weights)
    of_part = parallel_emo_loss(part, labels, costs, of_slices, token_weights=token_weights, **more)
    close(of_part, of_full, tolerance, (what, "logits"))
    (one,), (other,) = (
        torch.autograd.grad((factor * of).sum(), leaf) for of, leaf in ((of_part, part), (of_full, full))
    )
    close(one, other[..., mine], 5 * tolerance, (what, "gradient of logits"))


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except CostbankError as error:
        return f"{error.message} | {error.hint}"
    raise AssertionError("it was not refused")
