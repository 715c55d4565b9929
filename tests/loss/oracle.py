"""The losses written directly from their definitions: float64, token by token, a whole cost matrix, autograd."""

import math
from typing import Any

import torch
from torch import Tensor

from costbank.loss import Costs, DenseCosts, DenseSmoothing, EMOOptions, NeighborCosts, NeighborSmoothing


def cost_matrix(costs: Costs | None, size: int) -> Tensor:
    """Costs [token, label] in float64. In the form neighbors, tokens that are no neighbor cost the mean."""
    if costs is None or isinstance(costs, NeighborSmoothing):
        return 1 - torch.eye(size, dtype=torch.float64)
    matrix = torch.empty(size, size, dtype=torch.float64)
    if isinstance(costs, DenseCosts):
        rows = _rows(costs)
        for t in range(size):
            matrix[:, t] = 1.0 - (rows * rows[t]).sum(dim=1)
    else:
        assert isinstance(costs, NeighborCosts)
        for t in range(size):
            matrix[:, t] = costs.far[t]
            for i, cost in zip(costs.ids[t].tolist(), costs.costs[t].tolist(), strict=True):
                if i >= 0:
                    matrix[i, t] = cost
    return matrix.fill_diagonal_(0.0)


def _rows(costs: DenseCosts) -> Tensor:
    """The rows; those of 8 bits have scales."""
    return costs.vectors.double() * (1.0 if costs.scales is None else costs.scales.double()[:, None])


def _value(log_p: Tensor, label: int, matrix: Tensor, costs: Costs | None, options: EMOOptions) -> Tensor:
    p, costs_of_label = log_p.exp(), matrix[:, label]
    masked = log_p == -torch.inf
    match options.objective:
        case "emo":
            return (p * costs_of_label).sum()
        case "delta":
            return 1 - p[label]
        case "neighbor_smoothing":
            q = torch.zeros_like(p)
            if isinstance(costs, DenseSmoothing):
                if costs.softened[label]:
                    q = costs.factors.double() * torch.exp(-costs_of_label / costs.temperature)
                    q[label] = costs.label_weight
                    q[masked] = 0
                if q.sum() <= 1e-30:
                    q[label] = 1
                q = q / q.sum()
                return -(q[q != 0] * log_p[q != 0]).sum()
            assert isinstance(costs, NeighborSmoothing)
            for i, weight in zip(costs.ids[label].tolist(), costs.weights[label].tolist(), strict=True):
                if i >= 0 and not masked[i]:
                    q[i] = weight
            # Weights in float32 sum to 1 up to rounding; the label has the rest.
            q[label] = max(0.0, 1 - float(q.sum()))
            q = q / q.sum()
            return -(q[q != 0] * log_p[q != 0]).sum()
        case "log":
            return -torch.logsumexp(log_p + (1 - costs_of_label).clamp_min(0).pow(options.log_power).log(), 0)
        case "kernel":
            assert isinstance(costs, DenseCosts)
            rows = _rows(costs)
            return ((p[:, None] * rows).sum(0) - rows[label]).square().sum() / 2
        case "d2gpo":
            assert isinstance(costs, NeighborCosts)
            density = torch.zeros_like(p)
            for rank, i in enumerate([label, *(i for i in costs.ids[label].tolist() if i >= 0)]):
                density[i] = math.exp(-((rank / options.d2gpo_std) ** 2) / 2) / options.d2gpo_std / math.sqrt(math.tau)
            return -(torch.softmax(density / options.d2gpo_temperature, 0) * log_p).sum()
    return p.sum() * 0


def token_losses(logits: Tensor, labels: Tensor, costs: Costs | None, options: EMOOptions) -> Tensor:
    """[n] losses in float64, 0 for ignored tokens; differentiable."""
    matrix = cost_matrix(costs, logits.shape[1])
    losses = []
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        if label == options.ignore_index:
            losses.append(torch.nan_to_num(row).sum() * 0)
            continue
        losses.append(_token_loss(row, label, matrix, costs, options))
    return torch.stack(losses)


def _token_loss(row: Tensor, label: int, matrix: Tensor, costs: Costs | None, options: EMOOptions) -> Tensor:
    if options.softcap is not None:
        row = torch.where(row == -torch.inf, row, options.softcap * torch.tanh(row / options.softcap))
    row = row / options.temperature
    log_p = torch.log_softmax(row, dim=0)
    ce, hit = -log_p[label], log_p[label].exp().detach()
    if options.label_smoothing:
        ce = (1 - options.label_smoothing) * ce - options.label_smoothing * log_p.mean()
    value = _value(log_p, label, matrix, costs, options)
    shown = value + hit if options.target_mass == "detached" else value
    ratio1, ratio2 = (ce / (shown + 1e-10)).detach(), (shown / (ce + 1e-10)).detach()
    weight: Any = options.weight
    if options.entropy_gate is not None:
        entropy = torch.special.entr(log_p.exp()).sum().detach()
        weight = weight * min(1.0, float(entropy) / math.log(options.entropy_gate))
    mixed = {
        "fixed": ce + weight * shown,
        "interpolate": (1 - weight) * ce + weight * shown,
        "emo1": (ce + ratio1 * shown) / 2,
        "emo1_clamped": (ce + ratio1.clamp_max(3) * shown) / 2,
        "emo2": ratio2 * ce + shown,
    }[options.mixing]
    if options.objective == "ce":
        mixed = ce
    elif options.objective == "tailr":
        mixed = ce * (hit / (options.tailr_gamma + (1 - options.tailr_gamma) * hit)).clamp_min(options.tailr_least)
    elif options.objective == "mixce":
        mixed = ce * (options.mixce_ratio + (1 - options.mixce_ratio) * hit)
    return mixed + options.z_loss * torch.logsumexp(row, 0) ** 2
