"""Target distributions for the objective `neighbor_smoothing`: over all tokens, or over each label's neighbors."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Integer
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.loss.costs.base import UNNAMED, Costs, rounding
from costbank.loss.costs.dense import DenseCosts

__all__ = [
    "LEAST_SUM",
    "DenseSmoothing",
    "NeighborSmoothing",
    "SmoothingOptions",
    "draw_neighbors",
    "smooth_dense",
    "smooth_neighbors",
]

LEAST_SUM = 1e-30
"""A label with a smaller sum of other tokens' weights keeps its whole share."""

_BISECTIONS = 40
_SAMPLED_LABELS = 256
# Costs lie in [0, 2]. At the ends of the range, q has one token, or all of them equally.
_TEMPERATURES = (1e-4, 1e3)


@dataclass(frozen=True)
class SmoothingOptions:
    """How costs become the distribution q of a label: q_i ∝ u_i^`unigram_power` · exp(−κ_i / T).

    The temperature T is chosen so that q has a given perplexity, exp(−Σ q_i log q_i): the number of tokens over which
    it spreads. So one setting has the same effect with any bank, whatever its dimension and the range of its costs.

    Attributes:
        k: the number of neighbors in q; None: all tokens.
        perplexity: of q, above 1; None: 500, or a sixteenth of the tokens that can be in q if that is less; with `k`, a
            quarter of k. A label with fewer neighbors has all of them with equal weights.
        temperature: T in units of cost; if it is given, `perplexity` has no effect.
        temperature_per: whether the `bank` has one T, with which the average entropy of q over labels is the logarithm
            of `perplexity`, or each `token` has its own, which needs `k`.
        label: whether the label is part of q, with a cost of 0. Otherwise q has only other tokens.
        unigram_power: the exponent of the tokens' counts u; 0 ignores them; None: 1 if the counts are known, else 0.
            T is chosen without them.
        exempt: kinds of tokens that keep their whole label and are in no other label's q: `special` tokens (and unused
            ids), `byte` pieces, and tokens of one or more `digit`.
        exempt_most_frequent: this many of the most frequent tokens are exempt too: the function words, in most text.
        draws: draw this many tokens from each label's q once, when it is opened, and use them instead of q. Training is
            then as fast as with neighbors, and on average over labels, the draws have the shares of q. None: q itself.
        seed: of the draws.

    Raises:
        UsageError: a value is out of range.
    """

    k: int | None = None
    perplexity: float | None = None
    temperature: float | None = None
    temperature_per: Literal["bank", "token"] = "bank"
    label: bool = False
    unigram_power: float | None = None
    exempt: tuple[str, ...] = ("special", "byte")
    exempt_most_frequent: int = 0
    draws: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise UsageError(f"k is {self.k}", "give 1 or more neighbors, or None for all tokens")
        if self.perplexity is not None and not 1 < self.perplexity < math.inf:
            raise UsageError(f"perplexity is {self.perplexity!r}", "give a number above 1, such as 200")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise UsageError(f"temperature is {self.temperature!r}", "give a number above 0, in units of cost")
        if self.temperature_per not in ("bank", "token"):
            raise UsageError(f"temperature_per is {self.temperature_per!r}", "give 'bank' or 'token'")
        if self.temperature_per == "token" and self.k is None:
            raise UsageError("temperature_per='token' over all tokens", "give k, or use temperature_per='bank'")
        if unknown := set(self.exempt) - {"special", "byte", "digit"}:
            raise UsageError(f"exempt has {sorted(unknown)[0]!r}", "give some of: special, byte, digit")
        if self.exempt_most_frequent < 0:
            raise UsageError(f"exempt_most_frequent is {self.exempt_most_frequent}", "give 0 or a number of tokens")
        if self.draws is not None and (type(self.draws) is not int or self.draws < 1 or self.k is not None):
            raise UsageError(
                f"draws is {self.draws!r}" + ("" if self.k is None else f", and k is {self.k}"),
                "give a whole number of draws, such as 64, without k",
            )
        if type(self.seed) is not int:
            raise UsageError(f"seed is {self.seed!r}", "give a whole number")
        if self.unigram_power is not None and not 0 <= self.unigram_power < math.inf:
            raise UsageError(f"unigram_power is {self.unigram_power!r}", "give 0 or a positive number, such as 0.5")

    def __str__(self) -> str:
        parts = [
            "all tokens" if self.k is None else f"{self.k} neighbors",
            f"temperature {self.temperature:g}"
            if self.temperature is not None
            else f"perplexity {'by default' if self.perplexity is None else f'{self.perplexity:g}'} "
            f"per {self.temperature_per}",
        ]
        parts += ["with the label"] if self.label else []
        parts += [] if self.unigram_power is None else [f"unigram power {self.unigram_power:g}"]
        parts += [f"exempt: {', '.join(self.exempt)}"] if self.exempt != SmoothingOptions.exempt else []
        parts += [f"exempt: the {self.exempt_most_frequent} most frequent"] if self.exempt_most_frequent else []
        parts += [] if self.draws is None else [f"{self.draws} draws of seed {self.seed}"]
        return ", ".join(parts)


@dataclass(frozen=True, eq=False, repr=False)
class NeighborSmoothing(Costs):
    """For each label, a distribution q over its neighbors and itself.

    Attributes:
        ids: int32 [vocab, k], the neighbors; −1 if a token has fewer.
        weights: [vocab, k], q of the neighbors; each row sums to 1 at most, and the rest is the label's.
        settings: the options in words.
    """

    ids: Integer[Tensor, "vocab k"]
    weights: Float[Tensor, "vocab k"]
    settings: str = ""

    @property
    def form(self) -> str:
        return "smoothing"

    @property
    def pin(self) -> str:
        return f"{super().pin} over {self.settings}"

    @property
    def vocab_size(self) -> int:
        return self.ids.shape[0]

    @property
    def device(self) -> torch.device:
        return self.ids.device

    @property
    def softened(self) -> Bool[Tensor, "vocab"]:
        """Whether a label gives a share to other tokens."""
        return self.weights.any(dim=1)

    @property
    def error(self) -> str:
        return f"{int(self.softened.sum()):,} of them softened over {self.settings}" + rounding(self.weights, ", ")


@dataclass(frozen=True, eq=False, repr=False)
class DenseSmoothing(DenseCosts):
    """For each label, a distribution q over all tokens, computed from their rows when it is needed.

    q_i = u_i exp(−κ_i / T) / Σ_j u_j exp(−κ_j / T), over all tokens but the label, unless it is part of q. A label
    whose sum is below 1e-30, because all tokens cost more than about 69 T, keeps its whole label.

    Attributes:
        factors: [vocab], u_i; 0 for tokens that are in no q.
        softened: [vocab], whether a label gives a share to other tokens.
        temperature: T.
        label_weight: the label's weight relative to exp(0): 1 if it is part of q, else 0.
        settings: the options in words.
    """

    factors: Float[Tensor, "vocab"]
    softened: Bool[Tensor, "vocab"]
    temperature: float
    label_weight: float
    settings: str = ""

    @property
    def form(self) -> str:
        return "smoothing"

    @property
    def pin(self) -> str:
        return f"{super().pin} over {self.settings}"

    @property
    def error(self) -> str:
        softened = f"{int(self.softened.sum()):,} of them softened over {self.settings}, T = {self.temperature:.3g}"
        return softened + self.rounding(", ")


def smooth_dense(
    costs: DenseCosts,
    options: SmoothingOptions,
    *,
    counts: Integer[Tensor, "vocab"] | None = None,
    exempt: Bool[Tensor, "vocab"] | None = None,
) -> DenseSmoothing:
    """Choose the temperature of distributions over all tokens.

    The average entropy is that of 256 labels, drawn by their counts if these are known.

    Args:
        costs: the costs of all tokens. Tokens without a vector keep their whole label and are in no q.
        options: how costs become distributions; `k` is None.
        counts: the number of times that each token occurs.
        exempt: tokens that keep their whole label and are in no q.

    Raises:
        UsageError: the perplexity exceeds the number of tokens, or counts are missing.
    """
    power = _unigram_power(options, counts)
    usable = costs.has_vector
    if exempt is not None:
        usable &= ~exempt
    perplexity = _perplexity(options, int(usable.sum()) - 1, "usable tokens besides the label")
    factors = usable.float()
    temperature = options.temperature
    if temperature is None:
        sample = _sample_labels(usable, counts)
        values = costs.rows(sample)
        values[:, ~usable] = torch.inf
        values[torch.arange(len(sample)), sample] = 0.0 if options.label else torch.inf
        temperature = _solve(lambda t: _entropy(values, t).mean(), perplexity)
    if power and counts is not None:
        # Divided by the largest, which changes no q.
        shares = (counts.clamp_min(0) + 1).double() / float(counts.max() + 1)
        factors = factors * shares.pow(power).float()
    label_weight = 1.0 if options.label else 0.0
    return DenseSmoothing(
        costs.vectors, factors, usable, temperature, label_weight, str(options), bank=costs.bank, scales=costs.scales,
        rounding_error=costs.rounding_error,
    )  # fmt: skip


def draw_neighbors(smoothing: DenseSmoothing, draws: int, seed: int, block_rows: int = 64) -> NeighborSmoothing:
    """Draw tokens from each label's distribution. A token that is drawn several times has the sum of their weights.

    This computes the costs of all pairs of tokens.

    Args:
        smoothing: the distributions over all tokens.
        draws: the tokens that are drawn for each label.
        seed: of the draws.
        block_rows: labels that are processed at a time.
    """
    device, size = smoothing.device, smoothing.vocab_size
    ids = torch.full((size, draws), -1, dtype=torch.int32, device=device)
    weights = torch.zeros(size, draws, device=device)
    # On every device, the same numbers choose the same tokens, up to the rounding of costs.
    generator = torch.Generator().manual_seed(seed)
    for labels in smoothing.softened.nonzero()[:, 0].split(block_rows):
        q = torch.exp(-smoothing.rows(labels) / smoothing.temperature) * smoothing.factors
        own = torch.arange(len(labels), device=device)
        q[own, labels] = smoothing.label_weight
        # A label that is far from all tokens keeps its whole share.
        q[own, labels] += (q.sum(dim=1) <= LEAST_SUM).to(q.dtype)
        below = q.double().cumsum(dim=1)
        points = torch.rand(len(labels), draws, generator=generator, dtype=torch.float64).to(device)
        drawn = torch.searchsorted(below, points.sort(dim=1).values * below[:, -1:], right=True).clamp_max(size - 1)
        slot = (drawn.diff(dim=1, prepend=drawn[:, :1]) != 0).cumsum(dim=1)
        of_labels = torch.full_like(drawn, -1).scatter_(1, slot, drawn)
        shares = q.new_zeros(drawn.shape).scatter_add_(1, slot, q.new_full(drawn.shape, 1 / draws))
        is_other = (of_labels >= 0) & (of_labels != labels[:, None])
        ids[labels] = torch.where(is_other, of_labels, -1).int()
        weights[labels] = torch.where(is_other, shares, 0.0)
    return NeighborSmoothing(ids, weights, smoothing.settings, bank=smoothing.bank)


def smooth_neighbors(
    ids: Integer[Tensor, "vocab k"],
    costs: Float[Tensor, "vocab k"],
    options: SmoothingOptions,
    *,
    counts: Integer[Tensor, "vocab"] | None = None,
    exempt: Bool[Tensor, "vocab"] | None = None,
    bank: str = UNNAMED,
    block_rows: int = 16_384,
) -> NeighborSmoothing:
    """Make the distribution of each label from a table of neighbors.

    Args:
        ids: the nearest tokens of each token; −1 for none.
        costs: the costs of these tokens.
        options: how costs become distributions.
        counts: the number of times that each token occurs.
        exempt: tokens that keep their whole label and are in no q.
        bank: name and id of the bank.
        block_rows: rows that are processed at a time.

    Raises:
        ShapeError: the tables have different shapes, or no columns.
        UsageError: the perplexity exceeds the number of neighbors, or counts are missing.
    """
    size, k = ids.shape
    if costs.shape != ids.shape or k < 1:
        raise ShapeError(
            f"neighbors of shape {list(ids.shape)} with costs of shape {list(costs.shape)}",
            "give a row of ids and a row of costs for each token, with at least one neighbor",
        )
    perplexity = _perplexity(options, k, "neighbors")
    power = _unigram_power(options, counts)
    blocks = [slice(start, start + block_rows) for start in range(0, size, block_rows)]
    temperature = options.temperature
    if options.temperature_per == "bank" and temperature is None:
        temperature = _table_temperature([_usable_costs(ids, costs, b, options, exempt) for b in blocks], perplexity)
    weights = torch.zeros(size, k, device=costs.device)
    for block in blocks:
        usable = _usable_costs(ids, costs, block, options, exempt)
        scores = -usable / (_token_temperatures(usable, perplexity) if temperature is None else temperature)
        if power and counts is not None:
            own = torch.arange(size, device=ids.device)[block, None]
            tokens = torch.cat([own, ids[block].long().clamp_min(0)], dim=1)[:, 0 if options.label else 1 :]
            scores += power * torch.log(counts.clamp_min(0).double() + 1)[tokens]
        q = torch.softmax(scores, dim=1).nan_to_num(0.0)  # NaN if no neighbor is usable
        weights[block] = q[:, 1:] if options.label else q
    return NeighborSmoothing(ids.int(), weights, str(options), bank=bank)


def _perplexity(options: SmoothingOptions, others: int, what: str) -> float:
    """The perplexity of the options, or the default for this number of tokens other than the label."""
    most = max(0, others + options.label)
    if options.perplexity is None:
        return max(1.0 + 1e-6, others / 4 if options.k is not None else min(500.0, others / 16))
    if options.temperature is None and options.perplexity > most:
        raise UsageError(
            f"a perplexity of {options.perplexity:g} needs more than {max(0, others):,} {what}",
            f"give a perplexity of {most:,} or less, or omit it" if most > 1 else "use a bank with more vectors",
        )
    return options.perplexity


def _unigram_power(options: SmoothingOptions, counts: Tensor | None) -> float:
    is_known = counts is not None and bool((counts > 0).any())
    if options.unigram_power and not is_known:
        raise UsageError("unigram_power needs the counts of tokens", "use a bank from a corpus, or omit it")
    return float(is_known) if options.unigram_power is None else options.unigram_power


def _sample_labels(usable: Bool[Tensor, "vocab"], counts: Tensor | None) -> Integer[Tensor, "sample"]:
    """Labels for the average entropy. The seed is fixed, so one bank always has one temperature."""
    weights = usable.double()
    if counts is not None and bool((counts * usable > 0).any()):
        weights = weights * counts.clamp_min(0)
    if not bool(weights.any()):
        raise UsageError("no token can be softened: all are exempt or have no vector", "use another bank, or exempt=()")
    generator = torch.Generator().manual_seed(0)
    return torch.multinomial(weights.cpu(), _SAMPLED_LABELS, replacement=True, generator=generator).to(usable.device)


def _usable_costs(
    ids: Tensor, costs: Tensor, block: slice, options: SmoothingOptions, exempt: Tensor | None
) -> Float64[Tensor, "n entries"]:
    """The costs in a block, ∞ for tokens that are not part of q. The first column is the label's if it is part of q."""
    ids, costs = ids[block], costs[block]
    usable = ids >= 0
    if exempt is not None:
        usable = usable & ~exempt[block, None] & ~exempt[ids.clamp_min(0).long()]
    values = torch.where(usable, costs.double(), torch.inf)
    if options.label:
        values = torch.cat([torch.where(usable.any(dim=1), 0.0, torch.inf)[:, None], values], dim=1)
    return values


def _entropy(costs: Float[Tensor, "n entries"], temperature: Tensor | float) -> Float[Tensor, "n"]:
    """The entropy of softmax(−κ / T) in nats; 0 if no token is usable."""
    return torch.special.entr(torch.softmax(-costs / temperature, dim=1)).sum(dim=1).nan_to_num(0.0)


def _solve(mean_entropy: Callable[[float], Tensor | float], perplexity: float) -> float:
    """The T of a mean entropy, which grows with T, to 1e-4 of itself, by bisection of its logarithm."""
    low, high = map(math.log, _TEMPERATURES)
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if mean_entropy(math.exp(middle)) > math.log(perplexity) else (middle, high)
    return math.exp((low + high) / 2)


def _table_temperature(blocks: list[Tensor], perplexity: float) -> float:
    """The T with which the average entropy over labels with usable neighbors is that of the perplexity."""
    labels = max(1, sum(int(costs.isfinite().any(dim=1).sum()) for costs in blocks))
    return _solve(lambda t: sum(float(_entropy(costs, t).sum()) for costs in blocks) / labels, perplexity)


def _token_temperatures(costs: Float64[Tensor, "n entries"], perplexity: float) -> Float64[Tensor, "n 1"]:
    """The T of each row with which its entropy is that of the perplexity."""
    target = math.log(perplexity)
    low = torch.full((len(costs), 1), math.log(_TEMPERATURES[0]), dtype=torch.float64, device=costs.device)
    high = torch.full_like(low, math.log(_TEMPERATURES[1]))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_above = _entropy(costs, middle.exp())[:, None] > target
        low, high = torch.where(is_above, low, middle), torch.where(is_above, middle, high)
    return ((low + high) / 2).exp()
