"""Which slice of the vocabulary this process holds: told, found by asking the others, or read off a DTensor."""

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
    """This process's part of a tensor that is cut along the vocabulary.

    Attributes:
        tensor: the part, a plain tensor.
        group: the processes that hold parts.
        start: the token of its first column, where it is known.
        vocab: the size of the whole, where it is known.
    """

    tensor: Tensor
    group: ProcessGroup
    start: int | None
    vocab: int | None


def open_shard(name: str, tensor: Tensor, dim: int, group: ProcessGroup | None, start: int | None) -> Shard:
    """Take the local part of a tensor that is cut along `dim`, which may be a DTensor.

    Raises:
        UsageError: there are no processes; a DTensor is placed in another way, or `start` or `group` are not its own.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        raise UsageError(
            "torch.distributed is not initialised, so no processes share the vocabulary",
            "call torch.distributed.init_process_group first; for a whole vocabulary call linear_emo_loss or emo_loss",
        )
    if not _is_dtensor(tensor):
        group = group or distributed.group.WORLD
        assert group is not None
        if distributed.get_rank(group) < 0:
            raise UsageError("this process is not in the group", "give the group of processes that holds its slices")
        return Shard(tensor, group, start, None)
    return _open_dtensor(name, tensor, dim % tensor.ndim, group, start)


def whole(name: str, tensor: Tensor | None, partial_gradient: bool = False) -> Tensor | None:
    """A tensor that is the same on all processes as a plain one.

    Args:
        name: for messages.
        tensor: plain, or a DTensor that is replicated.
        partial_gradient: its gradient here is a summand of the whole one, and is to be placed as that.

    Raises:
        UsageError: it is a DTensor that is placed in another way.
    """
    if tensor is None or not _is_dtensor(tensor):
        return tensor
    from torch.distributed.tensor import Partial

    placements: Any = tensor.placements  # pyright: ignore[reportAttributeAccessIssue]
    if not all(placement.is_replicate() for placement in placements):
        raise UsageError(
            f"{name} is a DTensor placed {_told(placements)}",
            f"every process needs all of it: give {name}.redistribute(placements=[Replicate()]), or a plain tensor",
        )
    if partial_gradient and len(placements) > 1:
        raise UsageError(
            f"{name} is a DTensor on a mesh of {len(placements)} dimensions, with a gradient that is not summed",
            f"give reduce_hidden=True, or {name} on the mesh of the processes that share the vocabulary",
        )
    grads = [Partial()] if partial_gradient else None
    return tensor.to_local(grad_placements=grads)  # pyright: ignore[reportAttributeAccessIssue]


def whole_labels(labels: Tensor | SoftTargets) -> Tensor | SoftTargets:
    """Labels, or soft targets, as `whole` has them."""
    if isinstance(labels, SoftTargets):
        probabilities = whole("soft targets", labels.probabilities)
        assert probabilities is not None
        return SoftTargets(probabilities, whole("ids of soft targets", labels.ids))
    ids = whole("labels", labels)
    assert ids is not None
    return ids


def vocab_shard_of(shard: Shard, size: int, tokens: int, costs: Costs | None, options: EMOOptions) -> VocabShard:
    """The slice of the vocabulary that a part of `size` columns is.

    Where it is not known, processes tell each other, and are checked against each other.

    Raises:
        ShapeError: parts of no width or of different numbers of tokens.
        UsageError: parts that do not follow each other in the order of processes.
    """
    group, start, vocab = shard.group, shard.start, shard.vocab
    rank, last = distributed.get_rank(group), distributed.get_world_size(group) - 1
    if vocab is None and start is not None and costs is not None and options.needs_costs:
        vocab = costs.vocab_size
        end = start + size
        if start < 0 or end > vocab or size < 1 or (rank == 0 and start > 0) or (rank == last and end < vocab):
            raise ShapeError(
                f"process {rank} of {last + 1} has tokens {start:,} to {end:,}, and {costs.bank} has {vocab:,}",
                "give each process at least one token, the first those from 0 and the last those up to the last",
            )
    elif vocab is None:
        start, vocab = _ask(group, size, tokens, start, shard.tensor.device)
    assert start is not None
    return VocabShard(start, size, vocab, _gatherer(group), rank)


def summed_over(group: ProcessGroup) -> Callable[[Tensor], None]:
    """What sums a tensor over processes, in place."""

    def sum_(tensor: Tensor) -> None:
        # As hidden states may be strided, and on other processes in another way.
        total = tensor.contiguous()
        distributed.all_reduce(total, group=group)
        if total is not tensor:
            tensor.copy_(total)

    return sum_


def _gatherer(group: ProcessGroup) -> Callable[[Tensor], Tensor]:
    processes = distributed.get_world_size(group)
    # PyTorch 2.13 has given it another name, and warns of this one.
    gather_into = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor

    def gather(tensor: Tensor) -> Tensor:
        every = tensor.new_empty(processes, *tensor.shape)
        gather_into(every.flatten(0, 1), tensor, group=group)
        return every

    return gather


def _ask(group: ProcessGroup, size: int, tokens: int, start: int | None, device: torch.device) -> tuple[int, int]:
    """The first token of this process's part, and the sum of the sizes of all."""
    own = torch.tensor([[size, tokens, -1 if start is None else start]], device=device)
    sizes, counts, starts = zip(*_gatherer(group)(own)[:, 0].tolist(), strict=True)
    if min(counts) != max(counts):
        raise ShapeError(
            f"processes have {', '.join(map(str, counts))} tokens", "give all processes of the group the same tokens"
        )
    if min(sizes) < 1:
        raise ShapeError(
            f"processes have {', '.join(map(str, sizes))} rows of the head", "give each of them at least one"
        )
    found = [sum(sizes[:i]) for i in range(len(sizes))]
    if any(told not in (-1, true) for told, true in zip(starts, found, strict=True)):
        raise UsageError(
            f"parts of {', '.join(map(str, sizes))} tokens are said to start at {', '.join(map(str, starts))}",
            f"give vocab_start={', '.join(map(str, found))}: parts follow each other in the order of processes",
        )
    return found[distributed.get_rank(group)], sum(sizes)


def _is_dtensor(tensor: Tensor) -> bool:
    # Told by what it has: importing its class takes as long as torch, and who has one has imported it.
    return hasattr(tensor, "placements")


def _open_dtensor(name: str, tensor: Any, dim: int, group: ProcessGroup | None, start: int | None) -> Shard:
    from torch.distributed.tensor import Shard as Sharded

    mesh, placements = tensor.device_mesh, tensor.placements
    if mesh.ndim != 1:
        raise UsageError(
            f"{name} is a DTensor on a mesh of {mesh.ndim} dimensions, placed {_told(placements)}",
            "under FSDP call the loss inside the forward of a wrapped module, where one dimension is left; else give "
            f"{name}.to_local(), and group= of the dimension that the vocabulary is cut along",
        )
    # Not a subclass: strided parts do not follow each other.
    if type(placements[0]) is not Sharded or placements[0].dim != dim:
        raise UsageError(
            f"{name} is a DTensor placed {_told(placements)}",
            f"give it cut along the vocabulary, .redistribute(placements=[Shard({dim})]); a weight that is whole on "
            "each process is for linear_emo_loss: .to_local()",
        )
    own, vocab = mesh.get_group(), tensor.shape[dim]
    if group is not None and distributed.get_process_group_ranks(group) != distributed.get_process_group_ranks(own):
        raise UsageError(f"group is not that of {name}, a DTensor", "leave group out: a DTensor has its own")
    rank, processes = distributed.get_rank(own), distributed.get_world_size(own)
    rows = -(-vocab // processes)
    begin, local = min(rank * rows, vocab), tensor.to_local()
    if local.shape[dim] != min(rows, vocab - begin) or (processes - 1) * rows >= vocab:
        raise ShapeError(
            f"{name} is a DTensor of {vocab:,} tokens, {local.shape[dim]:,} of them at process {rank} of {processes}",
            f"give each process at least one, and {rows:,} but for the last; or give {name}.to_local() and vocab_start",
        )
    if start not in (None, begin):
        raise UsageError(f"vocab_start is {start}, and {name} starts at {begin}", "leave it out: a DTensor has its own")
    return Shard(local, own, begin, vocab)


def _told(placements: Any) -> str:
    return ", ".join(map(str, placements))
