"""The exact Earth Mover's Distance on the tokens with the most mass: for soft targets, and to check other losses.

With a one-hot target there is only one transport plan, so `emo_loss` is already exact. With a soft target q there are
many plans: this module finds the best one with the network simplex of POT (Bonneel et al. 2011), one token at a time on
the CPU. `emo_loss` does not use it.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable

from costbank.cost import pairwise_costs
from costbank.errors import ShapeError, UsageError, require
from costbank.loss.engine.targets import SoftTargets

__all__ = ["TransportParts", "TransportResult", "exact_transport_loss"]

_SUM_TOLERANCE = 1e-3
_MOST_ITERATIONS = 1_000_000


class TransportParts(NamedTuple):
    """The solution for each token, [...] without gradient; 0 for masked tokens.

    The distance over the whole vocabulary is within 2 · (`left_out_logits` + `left_out_targets`) of `distance`.

    Attributes:
        distance: the least cost of moving p onto q, both renormalized on the support.
        left_out_logits: the probability of the tokens outside the support under the logits.
        left_out_targets: the same under the target; for a sparse target, 1 minus its sum.
    """

    distance: Tensor
    left_out_logits: Tensor
    left_out_targets: Tensor


class TransportResult(NamedTuple):
    """A loss, reduced, and its parts for each token."""

    loss: Tensor
    parts: TransportParts


class _Targets(NamedTuple):
    """The entries of n soft targets that are kept, in float64 on the CPU, in no particular order of ids."""

    ids: Int64[np.ndarray, "n k"]
    q: Float64[np.ndarray, "n k"]
    left_out: Float64[np.ndarray, "n"]


class _Problem(NamedTuple):
    """One token's transport problem: the ids of its support with the mass of p, and the ids with mass of q."""

    ids: Int64[np.ndarray, "rows"]
    p: Float64[np.ndarray, "rows"]
    target_ids: Int64[np.ndarray, "columns"]
    q: Float64[np.ndarray, "columns"]


def exact_transport_loss(
    logits: Float[Tensor, "*tokens vocab"],
    targets: Tensor | tuple[Tensor, Tensor] | SoftTargets,
    vectors: Any,
    *,
    support: int = 32,
    mask: Bool[Tensor, "*tokens"] | Integer[Tensor, "*tokens"] | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """The Earth Mover's Distance between softmax(logits) and soft targets, on the support of their largest entries.

    For each token, the support is the union of the `support` largest entries of p and those of q. Both are renormalized
    on it, and min Σ π_ij c_ij over plans π with marginals p and q is solved in float64, with c_ij = 1 − ⟨e_i, e_j⟩ and
    c_ii = 0. The gradient goes through p alone: a dual potential u of the solution is a (sub)gradient of the distance
    with respect to p (envelope theorem), so that ∂/∂z_i = p_i (u_i − Σ_j p_j u_j) on the support, and 0 elsewhere. A
    distance of 0 is the minimum, so its gradient is 0. No gradient goes to the targets.

    The costs are those of `Bank.cost_matrix`, rounded to float32. They are not a metric (the triangle inequality does
    not hold), so the best plan may move mass that p and q share.

    This is slow: it solves a transport problem for each token on one core, and is slower still where the threads of
    PyTorch and BLAS compete for that core. Use it for thousands of tokens, not millions.

    Args:
        logits: [..., vocab], any floating-point dtype.
        targets: probabilities [..., vocab]; or (ids [..., k], probabilities [..., k]) of the k tokens with a nonzero
            probability, which are all in the support. Dense targets sum to 1. Sparse ones can sum to less, as a
            teacher's top k does; the rest counts as left out. Entries of probability 0 are ignored. `SoftTargets` of
            either form are accepted too; their positions with only zeros do not count.
        vectors: float32 [vocab, dim] of unit or zero rows, or an object with such `vectors`, such as `DenseCosts`.
        support: how many entries of p, and of dense q, are kept; the width of the vocabulary or more keeps all.
        mask: [...], true or not 0 for the tokens that count; by default all count.
        reduction: `mean` over the tokens that count, `sum`, or `none`: a loss for each token, 0 for the others.

    Returns:
        The loss in float32 (float64 for such logits): a scalar, or [...] for `reduction="none"`. NaN for NaN logits.

    Raises:
        ShapeError: shapes or widths do not match.
        UsageError: targets are negative or have another sum, ids or `support` are out of range, or `reduction` is
            invalid.
        MissingExtraError: POT is not installed.
    """
    return exact_transport_loss_with_parts(
        logits, targets, vectors, support=support, mask=mask, reduction=reduction
    ).loss


def exact_transport_loss_with_parts(
    logits: Float[Tensor, "*tokens vocab"],
    targets: Tensor | tuple[Tensor, Tensor] | SoftTargets,
    vectors: Any,
    *,
    support: int = 32,
    mask: Bool[Tensor, "*tokens"] | Integer[Tensor, "*tokens"] | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> TransportResult:
    """`exact_transport_loss` with the distance of each token and the masses left out, which bound the error.

    Args:
        logits, targets, vectors, support, mask, reduction: see `exact_transport_loss`.

    Raises:
        ShapeError, UsageError, MissingExtraError: see `exact_transport_loss`.
    """
    # Rows in 8 bits have scales.
    is_scaled = getattr(vectors, "scales", None) is not None
    rows: Tensor = vectors.wide() if is_scaled else getattr(vectors, "vectors", vectors)
    mask = None if mask is None else mask.bool()
    if isinstance(targets, SoftTargets):
        sums = targets.probabilities.sum(dim=-1, keepdim=True)
        some = sums[..., 0] > 0
        mask = some if mask is None else mask & some
        # Positions without a target are masked. They get a uniform target, which is a valid distribution.
        q = torch.where(sums > 0, targets.probabilities / sums, 1 / targets.probabilities.shape[-1])
        targets = q if targets.ids is None else (targets.ids, q)
    _check(logits, targets, rows, support, mask, reduction)
    width, shape = logits.shape[-1], logits.shape[:-1]
    support = min(support, width)
    flat = logits.reshape(-1, width)
    kept = torch.ones(len(flat), dtype=torch.bool) if mask is None else mask.reshape(-1).cpu()
    loss, *columns = _Distances.apply(flat, _largest(targets, support), rows, support, kept)
    if reduction == "none":
        loss = loss.reshape(shape)
    else:
        loss = loss.sum() if reduction == "sum" else loss.sum() / kept.sum().clamp_min(1).to(loss.device)
    return TransportResult(loss, TransportParts(*(column.reshape(shape) for column in columns)))


class _Distances(torch.autograd.Function):
    """[n] distances of [n, vocab] logits, and their parts."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: _Targets, vectors: Tensor, support: int, kept: Tensor
    ) -> tuple[Tensor, ...]:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        tokens = len(logits)
        widest = support + targets.ids.shape[1]
        parts = np.zeros((3, tokens))
        ids = np.zeros((tokens, widest), np.int64)
        slopes = np.zeros((tokens, widest))
        for token, problem, left_out in _problems(logits.to(dtype), targets, support, kept):
            if not np.isfinite(problem.p).all():
                parts[:, token] = slopes[token] = np.nan
                continue
            distance, potential = _solve(problem, vectors)
            parts[:, token] = distance, *left_out
            ids[token, : len(problem.ids)] = problem.ids
            if distance > 0:
                slopes[token, : len(problem.ids)] = problem.p * (potential - problem.p @ potential)
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        ctx.save_for_backward(
            torch.from_numpy(ids).to(logits.device), torch.from_numpy(slopes).to(logits.device, dtype)
        )
        columns = [torch.from_numpy(column).to(logits.device, dtype) for column in parts]
        columns.insert(0, columns[0].clone())
        ctx.mark_non_differentiable(*columns[1:])
        return tuple(columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- a gap in once_differentiable's types
        ids, slopes = ctx.saved_tensors
        gradient = torch.zeros(ctx.shape, dtype=slopes.dtype, device=slopes.device)
        gradient.scatter_add_(1, ids, slopes * gradients[0][:, None])
        return gradient.to(ctx.dtype), None, None, None, None


def _largest(targets: Tensor | tuple[Tensor, Tensor], support: int) -> _Targets:
    """The `support` largest entries of dense targets, or all entries of sparse ones."""
    if isinstance(targets, Tensor):
        dense = targets.detach().reshape(-1, targets.shape[-1])
        kept = dense.topk(support, dim=1)
        ids, q, sums = kept.indices, kept.values, dense.sum(dim=1, dtype=torch.float64).cpu().numpy()
    else:
        ids, q = (part.detach().reshape(-1, part.shape[-1]) for part in targets)
        sums = 1.0
    masses = q.double().cpu().numpy()
    return _Targets(ids.long().cpu().numpy(), masses, np.clip(1.0 - masses.sum(axis=1) / sums, 0.0, 1.0))


def _problems(
    logits: Tensor, targets: _Targets, support: int, kept: Tensor
) -> Iterator[tuple[int, _Problem, tuple[float, float]]]:
    """Each token that counts: its index, its transport problem, and the masses of p and q that it leaves out."""
    whole = torch.logsumexp(logits, dim=1).double().cpu()
    largest = logits.topk(support, dim=1).indices.cpu().numpy()
    for token in torch.nonzero(kept)[:, 0].tolist():
        has_mass = targets.q[token] > 0
        target_ids, q = targets.ids[token, has_mass], targets.q[token, has_mass]
        ids = np.union1d(largest[token], target_ids)
        scores = logits[token, torch.from_numpy(ids).to(logits.device)].double().cpu()
        outside = -torch.expm1(torch.logsumexp(scores, dim=0) - whole[token]).item() if len(ids) < len(logits[0]) else 0
        problem = _Problem(ids, torch.softmax(scores, dim=0).numpy(), target_ids, q / q.sum())
        yield token, problem, (max(outside, 0.0), float(targets.left_out[token]))


def _solve(problem: _Problem, vectors: Float32[Tensor, "vocab dim"]) -> tuple[float, Float64[np.ndarray, "rows"]]:
    """The least cost, and the dual potential of each id of p; it is centered, which changes no gradient."""
    ot = require("ot", "ot")
    rows, columns = (
        vectors[torch.from_numpy(ids).to(vectors.device)].detach().float().cpu().numpy()
        for ids in (problem.ids, problem.target_ids)
    )
    costs = pairwise_costs(problem.ids, problem.target_ids, rows, columns).astype(np.float64)
    plan, log = ot.emd(
        problem.p, problem.q, costs, numItermax=_MOST_ITERATIONS, log=True, center_dual=True, check_marginals=False
    )
    # Summed here, because POT sums in another order, and not to exactly 0 if all costs in the plan are 0.
    return float((plan * costs).sum()), log["u"]


def _check(logits: Tensor, targets: Any, vectors: Tensor, support: int, mask: Tensor | None, reduction: str) -> None:
    if logits.ndim < 1 or not logits.is_floating_point():
        raise ShapeError(
            f"logits are {logits.dtype} of shape {list(logits.shape)}", "give floating-point logits [..., vocab]"
        )
    width = logits.shape[-1]
    if vectors.ndim != 2 or len(vectors) != width:
        raise ShapeError(
            f"logits are {width:,} wide, but vectors have shape {list(vectors.shape)}",
            f"give one row for each logit, as bank.matrix('torch', vocab_size={width}) does",
        )
    if support < 1:
        raise UsageError(f"support is {support}", f"give 1 to {width:,}")
    if reduction not in ("mean", "sum", "none"):
        raise UsageError(f"reduction is {reduction!r}", "give one of: mean, sum, none")
    if mask is not None and mask.shape != logits.shape[:-1]:
        raise ShapeError(
            f"mask has shape {list(mask.shape)}", f"give {list(logits.shape[:-1])}, one value for each row of logits"
        )
    dense = isinstance(targets, Tensor)
    ids, q = (None, targets) if dense else targets
    if q.ndim != logits.ndim or q.shape[:-1] != logits.shape[:-1] or (dense and q.shape[-1] != width):
        raise ShapeError(
            f"logits of shape {list(logits.shape)} with targets of shape {list(q.shape)}",
            "give probabilities of the logits' shape, or (ids, probabilities), both [..., k]",
        )
    if ids is not None:
        if ids.shape != q.shape:
            raise ShapeError(
                f"target ids of shape {list(ids.shape)} with probabilities of shape {list(q.shape)}",
                "give one probability for each id",
            )
        if ids.is_floating_point() or bool(((ids < 0) | (ids >= width)).any()):
            raise UsageError(
                f"target ids are not all integers below {width:,}", "to pad a row, give any valid id probability 0"
            )
    _check_sums(q if mask is None else q[mask], dense)


def _check_sums(q: Tensor, dense: bool) -> None:
    """Refuse targets that are not distributions or contain NaN."""
    if not bool((q >= 0).all()):
        raise UsageError("targets have negative entries or NaN", "give probabilities, not logits or log-probabilities")
    sums = q.sum(dim=-1, dtype=torch.float64)
    fit = (sums <= 1 + _SUM_TOLERANCE) & ((sums >= 1 - _SUM_TOLERANCE) if dense else (sums > 0))
    if not bool(fit.all()):
        raise UsageError(
            f"the targets of a token sum to {sums[~fit][0].item():.6g}",
            "give probabilities that sum to 1" if dense else "give probabilities that sum to 1, or less if truncated",
        )
