"""Soft targets: a distribution over tokens for each position, such as a teacher's, in the place of a label."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.loss.costs import Costs, DenseCosts
from costbank.loss.options import EMOOptions

__all__ = ["SoftTargets", "SoftValue", "check_soft", "soft_value"]


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Target distributions q, given to a loss where labels would be.

    A position whose probabilities are all 0 is ignored; others are divided by their sum, so that a teacher's k
    likeliest tokens are a distribution of their own. No gradient goes to them.

    Attributes:
        probabilities: [..., vocab], or [..., k] with `ids`; not negative.
        ids: [..., k], the tokens of the probabilities, different ones in each row.
    """

    probabilities: Float[Tensor, "*tokens entries"]
    ids: Integer[Tensor, "*tokens entries"] | None = None

    def __post_init__(self) -> None:
        if self.ids is not None and self.ids.shape != self.probabilities.shape:
            raise ShapeError(
                f"ids of shape {list(self.ids.shape)} for probabilities of shape {list(self.probabilities.shape)}",
                "give a token id for each probability",
            )

    @property
    def shape(self) -> torch.Size:
        """Of the positions."""
        return self.probabilities.shape[:-1]

    @property
    def device(self) -> torch.device:
        return self.probabilities.device

    def flat(self, dtype: torch.dtype) -> tuple["SoftTargets", Tensor]:
        """The same with one dimension of positions, and which are not ignored, [tokens]."""
        q = self.probabilities.detach().reshape(-1, self.probabilities.shape[-1])
        # A dense teacher's type is kept: its rows are divided by their sums block by block.
        kept = q.sum(dim=1, dtype=dtype) != 0
        ids = None if self.ids is None else self.ids.reshape(q.shape).long()
        return SoftTargets(q, ids), kept

    def __getitem__(self, rows: "slice | Tensor") -> "SoftTargets":
        return SoftTargets(self.probabilities[rows], None if self.ids is None else self.ids[rows])

    def normalized(self, dtype: torch.dtype) -> Tensor:
        """[n, entries] rows that sum to 1; rows of zeros stay."""
        q = self.probabilities.to(dtype)
        return q / q.sum(dim=1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)

    def mean(self, values: Float[Tensor, "n columns"], q: Tensor) -> Float[Tensor, "n"]:
        """Σ q_i v_i of each row, where a token that has no probability counts for nothing, whatever its value."""
        values = values if self.ids is None else values.gather(1, self.ids)
        return torch.where(q > 0, q * values, 0.0).sum(dim=1)

    def mean_vector(self, vectors: Float[Tensor, "vocab dim"], q: Tensor) -> Float[Tensor, "n dim"]:
        """Σ q_i e_i of each row."""
        if self.ids is None:
            return torch.mm(q.to(vectors.dtype), vectors).to(q.dtype)
        return torch.bmm(q[:, None].to(vectors.dtype), vectors[self.ids])[:, 0].to(q.dtype)

    def add_(self, block: Float[Tensor, "n columns"], values: Tensor) -> None:
        """Add [n, entries] to the tokens that they stand for."""
        if self.ids is None:
            block.add_(values)
        else:
            block.scatter_add_(1, self.ids, values)

    def likeliest(self) -> Tensor:
        """[n] ids of the largest probabilities."""
        top = self.probabilities.argmax(dim=1)
        return top if self.ids is None else self.ids.gather(1, top[:, None])[:, 0]


@dataclass
class SoftValue:
    """The objective of a block of soft targets: its value [n], and ∂D/∂p up to a constant of each row, [n, columns]."""

    value: Tensor
    slope: Tensor


def soft_value(
    p: Float[Tensor, "n vocab"], q: Tensor, targets: SoftTargets, costs: DenseCosts, objective: str, out: Tensor
) -> SoftValue:
    """What it costs to move p to q.

    `emo`: Σ_ij p_i q_j c(i, j), the cost of moving mass without regard to where it comes from: the product coupling,
    which bounds the Earth Mover's Distance from above and is it where q is one-hot. It is not 0 for p = q. `kernel`:
    ½ ‖Σ p_i e_i − Σ q_j e_j‖², the same less half of what p and q cost to themselves (the debiased bound of Genevay,
    Peyré & Cuturi 2018, arXiv 1706.00292, where a token without a vector has no cost to itself); it is 0 for p = q.
    """
    vectors = costs.vectors.to(p.dtype) if costs.vectors.dtype != p.dtype else costs.vectors
    of_targets = targets.mean_vector(vectors, q)
    if objective == "kernel":
        away = torch.mm(p, vectors) - of_targets
        slope = torch.mm(away, vectors.T, out=out)
        return SoftValue(0.5 * away.square().sum(dim=1), slope)
    torch.mm(of_targets.neg(), vectors.T, out=out).add_(1.0)
    # The rows' own lengths say what the product of a token with itself makes of its cost, which is 0.
    own = 1.0 - vectors.square().sum(dim=1)
    targets.add_(out, -q * (own if targets.ids is None else own[targets.ids]))
    out.clamp_min_(0.0)
    return SoftValue(torch.mul(p, out).sum(dim=1), out)


def check_soft(
    targets: SoftTargets, shape: Sequence[int], width: int, costs: Costs | None, options: EMOOptions
) -> None:
    """Check soft targets against rows of logits of a shape.

    Raises:
        ShapeError: they are for other positions, or another vocabulary.
        UsageError: a probability is negative or an id out of range; or options or costs are of no use with them.
    """
    if tuple(targets.shape) != tuple(shape):
        raise ShapeError(
            f"soft targets for positions of shape {list(targets.shape)}, and logits for {list(shape)}",
            "give a distribution for each row of logits",
        )
    entries = targets.probabilities.shape[-1]
    if targets.ids is None and entries != width:
        raise ShapeError(
            f"soft targets over {entries:,} tokens, and the logits are {width:,} wide",
            "give a probability for each token, or ids= of the tokens that they are for",
        )
    if options.objective not in ("emo", "kernel", "ce"):
        raise UsageError(f"the objective {options.objective!r} of soft targets", "take 'emo', 'kernel' or 'ce'")
    if options.objective != "ce" and not isinstance(costs, DenseCosts):
        form = "no" if costs is None else costs.form
        raise UsageError(f"soft targets with {form} costs", "open the bank's costs as dense or low-rank")
    for name, default in (("shift", False), ("label_smoothing", 0.0), ("target_mass", "excluded")):
        if getattr(options, name) != default:
            raise UsageError(f"{name} with soft targets", "put it into the targets themselves")
    if targets.device.type == "cpu":
        if (targets.probabilities < 0).any() or not targets.probabilities.isfinite().all():
            raise UsageError("a target's probability is negative or not finite", "give probabilities, not logits")
        if targets.ids is not None and ((targets.ids < 0) | (targets.ids >= width)).any():
            raise UsageError("an id of a soft target is no token of the vocabulary", f"give ids below {width:,}")
    elif targets.ids is not None:
        inside = ((targets.ids >= 0) & (targets.ids < width)).all()
        torch._assert_async(inside, f"an id of a soft target is not below {width}")  # pyright: ignore[reportPrivateImportUsage]
