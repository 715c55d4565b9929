"""The sum of a loss over tokens whose logits are whole, split by vocabulary, or DTensors on a mesh of several axes."""

from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.distributed import ProcessGroup

from costbank.errors import UsageError
from costbank.loss import EMOLoss, emo_loss, parallel_emo_loss
from costbank.trainers.reduction import move_loss

__all__ = ["loss_sum"]


def loss_sum(
    loss: EMOLoss,
    logits: Tensor,
    labels: Tensor,
    *,
    group: ProcessGroup | None = None,
    vocab_size: int | None = None,
    token_weights: Tensor | None = None,
    step: int | None = None,
) -> Tensor:
    """The sum of a loss over tokens that are not ignored. Labels are not shifted.

    Args:
        loss: the loss; its options `reduction`, `shift` and `softcap` are ignored.
        logits: [..., vocab]; or this process's slice of the columns, if there is a group; or a DTensor, of which any
            axis of the mesh splits tokens, and at most one the vocabulary.
        labels: [...], as a plain tensor of this process's tokens, or a DTensor with the same placements.
        group: the processes that have the slices of plain logits.
        vocab_size: the number of columns of all slices together.
        token_weights: [...], a factor for each token's loss.
        step: the training step, for a weight that follows a schedule.

    Returns:
        The sum. If labels are a DTensor, a DTensor that is partial over the axes that split tokens.

    Raises:
        UsageError: several axes of the mesh split the vocabulary, or slices are given without the size.
        ShapeError: see `emo_loss`.
    """
    mesh: Any = getattr(logits, "device_mesh", None)
    local, output = logits, None
    if mesh is not None:
        placements: Any = logits.placements  # pyright: ignore[reportAttributeAccessIssue] -- a DTensor
        group, output = _vocab_group(mesh, placements, logits.ndim), _output_placements(placements, logits.ndim)
        vocab_size, local = logits.shape[-1], logits.to_local()  # pyright: ignore[reportAttributeAccessIssue]
    is_distributed = hasattr(labels, "placements")
    targets: Tensor = labels.to_local() if is_distributed else labels  # pyright: ignore[reportAttributeAccessIssue]
    if group is not None and vocab_size is None:
        raise UsageError("logits are split by vocabulary, but its size is not known", "give the size of the vocabulary")
    loss.fit(local.shape[-1] if vocab_size is None else vocab_size)
    move_loss(loss, local.device)
    options = replace(loss.options, reduction="sum", shift=False, softcap=None)
    more: dict[str, Any] = {"token_weights": token_weights, "step": step}
    rows, targets = local.reshape(-1, local.shape[-1]), targets.reshape(-1).to(local.device)
    if group is None:
        total = emo_loss(rows, targets, loss.costs, options, **more)
    else:
        total = parallel_emo_loss(rows, targets, loss.costs, options, group=group, **more)
    if not is_distributed or mesh is None:
        return total
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(total, mesh, output)


def _splits_vocab(placement: Any, ndim: int) -> bool:
    return placement.is_shard() and placement.dim % ndim == ndim - 1


def _vocab_group(mesh: Any, placements: Any, ndim: int) -> ProcessGroup | None:
    """The processes that share the vocabulary of a DTensor; None if each has all columns."""
    axes = [axis for axis, placement in enumerate(placements) if _splits_vocab(placement, ndim)]
    if len(axes) > 1 or any(placement.is_partial() for placement in placements):
        raise UsageError(
            f"logits are a DTensor placed {', '.join(map(str, placements))}",
            "split the vocabulary along one axis of the mesh, and tokens along the others",
        )
    return mesh.get_group(axes[0]) if axes else None


def _output_placements(placements: Any, ndim: int) -> list[Any]:
    from torch.distributed.tensor import Partial, Replicate

    return [Partial() if p.is_shard() and not _splits_vocab(p, ndim) else Replicate() for p in placements]
