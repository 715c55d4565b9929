"""Checks of processes that share a batch: FSDP and DDP train like one process on the whole batch."""

import copy

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from costbank.loss import LinearEMOLoss, linear_emo_loss
from tests.loss.slices import forms, refusal

VOCAB, DIM, BATCH, LENGTH, STEPS = 37, 8, 4, 7, 3


class Model(nn.Module):
    """A model whose forward returns its loss, as FSDP needs it: inside the forward, its weights are whole."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.body = nn.Sequential(nn.Linear(DIM, DIM), nn.Tanh())
        self.head = nn.Linear(DIM, VOCAB, bias=False)
        self.loss = LinearEMOLoss(forms()["dense"])

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.body(self.embedding(ids)), self.head.weight, labels)


def model_and_batches() -> tuple[Model, list[tuple[Tensor, Tensor]]]:
    """A model, and batches whose halves have equal numbers of ignored labels: the mean of their means is the mean."""
    torch.manual_seed(7)
    model, batches = Model(), []
    for _ in range(STEPS):
        ids, labels = (torch.randint(0, VOCAB, (BATCH, LENGTH)) for _ in range(2))
        labels[:, 0] = -100
        batches.append((ids, labels))
    return model, batches


def losses_of(model: nn.Module, batches: list[tuple[Tensor, Tensor]], part: slice) -> list[Tensor]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for ids, labels in batches:
        loss = model(ids[part], labels[part])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return losses


def own_part() -> slice:
    size = BATCH // distributed.get_world_size()
    return slice(distributed.get_rank() * size, (distributed.get_rank() + 1) * size)


def same_losses(ours: list[Tensor], theirs: list[Tensor]) -> None:
    mean = torch.stack(ours)
    distributed.all_reduce(mean)
    assert torch.allclose(mean / distributed.get_world_size(), torch.stack(theirs), atol=1e-5)


def fully_sharded_training_is_that_of_one_process() -> None:
    whole, batches = model_and_batches()
    model = copy.deepcopy(whole)
    fully_shard(model.body)
    fully_shard(model)
    same_losses(losses_of(model, batches, own_part()), losses_of(whole, batches, slice(None)))
    assert model.head.weight.placements[0].is_shard()
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(one.full_tensor(), other, atol=1e-5)


def weights_outside_of_forward_are_refused() -> None:
    model, ((ids, labels), *_) = model_and_batches()
    fully_shard(model)
    hidden = torch.zeros(*ids.shape, DIM)
    message = refusal(lambda: linear_emo_loss(hidden, model.head.weight, labels, forms()["dense"]))
    assert "weight is a DTensor placed S(0)" in message or "weight is a DTensor placed Shard(dim=0)" in message, message
    assert "inside the forward of a wrapped module" in message


def checkpoints_hold_no_costs() -> None:
    model, _ = model_and_batches()
    names = {name for name, _ in model.named_parameters()}
    fully_shard(model)
    state = model.state_dict()
    assert set(state) == names | {"loss._extra_state"}
    assert bytes(state["loss._extra_state"].tolist()).decode().startswith("unnamed@")
    model.load_state_dict(state)


def replicated_training_is_that_of_one_process() -> None:
    whole, batches = model_and_batches()
    model = DistributedDataParallel(copy.deepcopy(whole))
    same_losses(losses_of(model, batches, own_part()), losses_of(whole, batches, slice(None)))
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
