"""FSDP2 with the linear loss, called inside the wrapped module's forward, where the head's weight is whole.

The script starts two processes on a CPU.

python examples/fsdp2.py
"""

import tempfile

import tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import GPT2Config, GPT2LMHeadModel

from costbank import open_bank
from costbank.loss import LinearEMOLoss

PROCESSES = 2


class WithLoss(nn.Module):
    """A model and its loss: token ids in, loss out."""

    def __init__(self, model: GPT2LMHeadModel, loss: LinearEMOLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, labels: Tensor) -> Tensor:
        hidden = self.model.transformer(input_ids=labels.clamp_min(0)).last_hidden_state
        # Outside this forward, the weight is a DTensor, and this process has only a slice of it.
        return self.loss(hidden, self.model.lm_head.weight, labels)


def process(rank: int, bank_path: str, meeting: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES)
    train(rank, bank_path)
    # The model has been deleted here. A model that outlives its process group can wait for it forever.
    dist.destroy_process_group()


def train(rank: int, bank_path: str) -> None:
    torch.manual_seed(0)
    bank = open_bank(bank_path)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=bank.size, n_positions=64, n_embd=64, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1
    ))  # fmt: skip
    whole = WithLoss(model, LinearEMOLoss(bank, shift=True))
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for block in model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(whole, mesh=mesh)
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-2)
    torch.manual_seed(rank)
    for step in range(21):
        loss = whole(tiny.batch())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        dist.all_reduce(mean := loss.detach() / PROCESSES)
        if rank == 0 and step % 5 == 0:
            rows, all_rows = len(model.lm_head.weight.to_local()), len(model.lm_head.weight)
            print(f"step {step}: loss {mean:.3f}; this process has {rows} of the head's {all_rows} rows", flush=True)


if __name__ == "__main__":
    path = str(tiny.bank().path)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, (f"{path}/", f"{folder}/meeting"), nprocs=PROCESSES)
