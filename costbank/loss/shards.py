"""The slice of the vocabulary of this process: from arguments, from a DTensor, or from the other processes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from costbank.errors import ShapeError, UsageError
from costbank.loss.costs import Costs
from costbank.loss.engine.softmax import VocabShard
from costbank.loss.engine.targets import SoftTargets
from costbank.loss.options import EMOOptions

__all__ = ["Shard", "open_shard", "summed_over", "vocab_shard_of", "whole", "whole_labels"]


class Shard(NamedTuple):
    """This process's part of a tensor that is split by vocabulary.

    Attributes:
        tensor: the part, a plain tensor.
        group: the processes that have the parts.
        start: the token id of its first column, if known.
        vocab: the size of the vocabulary, if known.
    """

    tensor: Tensor
    group: ProcessGroup
    start: int | None
    vocab: int | None


def open_shard(name: str, tensor: Tensor, dim: int, group: ProcessGroup | None, start: int | None) -> Shard:
    """The local part of a tensor that is split along `dim`.

    Args:
        name: the name of the argument, for messages.
        tensor: the local part, or a DTensor.
        dim: the dimension of the vocabulary.
        group: the processes; None: all, or those of the DTensor.
        start: the token id of the first column, if known.

    Raises:
        UsageError: there is no process group, a DTensor has other placements, or `start` or `group` contradicts it.
        ShapeError: a process has no row, or the rows of a DTensor are not divided evenly.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        raise UsageError(
            "torch.distributed is not initialized, so no processes share the vocabulary",
            "call torch.distributed.init_process_group first; if the vocabulary is not split, call linear_emo_loss or "
            "emo_loss",
        )
    if not _is_dtensor(tensor):
        group = group or distributed.group.WORLD
        assert group is not None
        if distributed.get_rank(group) < 0:
            raise UsageError("this process is not in the group", "give the group of the processes that have the slices")
        return Shard(tensor, group, start, None)
    return _open_dtensor(name, tensor, dim % tensor.ndim, group, start)


def whole(name: str, tensor: Tensor | None, partial_gradient: bool = False) -> Tensor | None:
    """A tensor that is the same on all processes, as a plain tensor.

    Args:
        name: the name of the argument, for messages.
        tensor: a plain tensor, or a replicated DTensor.
        partial_gradient: whether the full gradient is the sum of the gradients of all processes (`Partial`).

    Raises:
        UsageError: it is a DTensor with other placements.
    """
    if tensor is None or not _is_dtensor(tensor):
        return tensor
    from torch.distributed.tensor import Partial

    placements: Any = tensor.placements  # pyright: ignore[reportAttributeAccessIssue]
    if not all(placement.is_replicate() for placement in placements):
        raise UsageError(
            f"{name} is a DTensor placed {_listed(placements)}",
            f"every process needs all of it: give {name}.redistribute(placements=[Replicate()]), or a plain tensor",
        )
    if partial_gradient and len(placements) > 1:
        raise UsageError(
            f"{name} is a DTensor on a mesh of {len(placements)} dimensions, and its gradient is not summed",
            f"give reduce_hidden=True, or {name} on the mesh of the processes that share the vocabulary",
        )
    grads = [Partial()] if partial_gradient else None
    return tensor.to_local(grad_placements=grads)  # pyright: ignore[reportAttributeAccessIssue]


def whole_labels(labels: Tensor | SoftTargets) -> Tensor | SoftTargets:
    """`whole` for labels or soft targets."""
    if isinstance(labels, SoftTargets):
        probabilities = whole("soft targets", labels.probabilities)
        assert probabilities is not None
        return SoftTargets(probabilities, whole("ids of soft targets", labels.ids))
    ids = whole("labels", labels)
    assert ids is not None
    return ids


def vocab_shard_of(shard: Shard, size: int, tokens: int, costs: Costs | None, options: EMOOptions) -> VocabShard:
    """The slice of the vocabulary that this process's part covers.

    If the shard does not know it, all processes exchange their sizes.

    Args:
        shard: the part.
        size: its number of columns.
        tokens: the number of tokens in the batch, which must be the same on all processes.
        costs: the costs of the whole vocabulary.
        options: the options of the loss.

    Raises:
        ShapeError: a part has no columns, or processes have different numbers of tokens.
        UsageError: the parts are not contiguous in the order of processes.
    """
    group, start, vocab = shard.group, shard.start, shard.vocab
    rank, last = distributed.get_rank(group), distributed.get_world_size(group) - 1
    if vocab is None and start is not None and costs is not None and options.needs_costs:
        vocab = costs.vocab_size
        end = start + size
        if start < 0 or end > vocab or size < 1 or (rank == 0 and start > 0) or (rank == last and end < vocab):
            raise ShapeError(
                f"process {rank} of {last + 1} has tokens {start:,} to {end:,}, and {costs.bank} has {vocab:,}",
                "give each process at least one token; the first starts at 0, and the last ends at the last token",
            )
    elif vocab is None:
        start, vocab = _exchange_sizes(group, size, tokens, start, shard.tensor.device)
    assert start is not None
    return VocabShard(start, size, vocab, _gatherer(group), rank)


def summed_over(group: ProcessGroup) -> Callable[[Tensor], None]:
    """A function that sums a tensor over processes, in place."""

    def sum_(tensor: Tensor) -> None:
        # Hidden states can have different strides on each process.
        total = tensor.contiguous()
        distributed.all_reduce(total, group=group)
        if total is not tensor:
            tensor.copy_(total)

    return sum_


def _gatherer(group: ProcessGroup) -> Callable[[Tensor], Tensor]:
    processes = distributed.get_world_size(group)
    # PyTorch 2.13 deprecates the old name.
    gather_into = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor

    def gather(tensor: Tensor) -> Tensor:
        gathered = tensor.new_empty(processes, *tensor.shape)
        gather_into(gathered.flatten(0, 1), tensor, group=group)
        return gathered

    return gather


def _exchange_sizes(
    group: ProcessGroup, size: int, tokens: int, start: int | None, device: torch.device
) -> tuple[int, int]:
    """The first token id of this process's part, and the size of the vocabulary."""
    own = torch.tensor([[size, tokens, -1 if start is None else start]], device=device)
    sizes, counts, starts = zip(*_gatherer(group)(own)[:, 0].tolist(), strict=True)
    if min(counts) != max(counts):
        raise ShapeError(
            f"processes have different numbers of tokens: {', '.join(map(str, counts))}",
            "give all processes of the group the same tokens",
        )
    if min(sizes) < 1:
        raise ShapeError(
            f"a process has no rows of the head: processes have {', '.join(map(str, sizes))}",
            "give each process at least one row",
        )
    actual = [sum(sizes[:i]) for i in range(len(sizes))]
    if any(start not in (-1, first) for start, first in zip(starts, actual, strict=True)):
        raise UsageError(
            f"for parts of {', '.join(map(str, sizes))} tokens, vocab_start is {', '.join(map(str, starts))}",
            f"give vocab_start={', '.join(map(str, actual))}: parts are contiguous, in the order of processes",
        )
    return actual[distributed.get_rank(group)], sum(sizes)


def _is_dtensor(tensor: Tensor) -> bool:
    # Recognized by this attribute: importing the class takes as long as importing torch.
    return hasattr(tensor, "placements")


def _open_dtensor(name: str, tensor: Any, dim: int, group: ProcessGroup | None, start: int | None) -> Shard:
    from torch.distributed.tensor import Shard as Sharded

    mesh, placements = tensor.device_mesh, tensor.placements
    if mesh.ndim != 1:
        raise UsageError(
            f"{name} is a DTensor on a mesh of {mesh.ndim} dimensions, placed {_listed(placements)}",
            "under FSDP, call the loss inside the forward of a wrapped module, where the mesh has one dimension; "
            f"otherwise give {name}.to_local() and group=, the group of the mesh dimension that splits the vocabulary",
        )
    # Not a subclass: strided shards are not contiguous.
    if type(placements[0]) is not Sharded or placements[0].dim != dim:
        raise UsageError(
            f"{name} is a DTensor placed {_listed(placements)}",
            f"split it by vocabulary: .redistribute(placements=[Shard({dim})]); if every process has the full weight, "
            "call linear_emo_loss with .to_local()",
        )
    own, vocab = mesh.get_group(), tensor.shape[dim]
    if group is not None and distributed.get_process_group_ranks(group) != distributed.get_process_group_ranks(own):
        raise UsageError(f"group is not the process group of the DTensor {name}", "omit group: a DTensor has its own")
    rank, processes = distributed.get_rank(own), distributed.get_world_size(own)
    rows = -(-vocab // processes)
    begin, local = min(rank * rows, vocab), tensor.to_local()
    if local.shape[dim] != min(rows, vocab - begin) or (processes - 1) * rows >= vocab:
        raise ShapeError(
            f"{name} is a DTensor of {vocab:,} tokens; process {rank} of {processes} has {local.shape[dim]:,} of them",
            f"give each process {rows:,} tokens, and the last at least one; or give {name}.to_local() and vocab_start",
        )
    if start not in (None, begin):
        raise UsageError(f"vocab_start is {start}, but {name} starts at {begin}", "omit it: a DTensor has its own")
    return Shard(local, own, begin, vocab)


def _listed(placements: Any) -> str:
    return ", ".join(map(str, placements))
