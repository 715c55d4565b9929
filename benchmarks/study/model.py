"""A small decoder with a tied head: learned positions, RMSNorm before each branch, GELU."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.study.design import Setting

__all__ = ["Decoder"]

_HEAD_DIM = 32


class Decoder(nn.Module):
    """Token ids in, hidden states out; the logits are `hidden @ embedding.weight.T`."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.embedding = nn.Embedding(setting.vocab, setting.dim)
        self.positions = nn.Embedding(setting.context, setting.dim)
        self.blocks = nn.ModuleList(_Block(setting) for _ in range(setting.layers))
        self.norm = nn.RMSNorm(setting.dim)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                scale = math.sqrt(2 * setting.layers) if name.endswith("out.weight") else 1.0
                nn.init.normal_(parameter, std=0.02 / scale)

    def forward(self, ids: Int64[Tensor, "batch context"]) -> Float[Tensor, "batch context dim"]:
        hidden = self.embedding(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)

    def next_hidden(
        self, ids: Int64[Tensor, "batch new"], state: Tensor | None
    ) -> tuple[Float[Tensor, "batch dim"], Tensor]:
        """The hidden state after these tokens, and a state for the tokens that follow them; None at the start."""
        seen = ids if state is None else torch.cat([state, ids], dim=1)
        return self(seen)[:, -1], seen


class _Block(nn.Module):
    def __init__(self, setting: Setting) -> None:
        super().__init__()
        dim = setting.dim
        self.heads, self.dropout = dim // _HEAD_DIM, nn.Dropout(setting.dropout)
        self.attention_norm, self.mlp_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv, self.attention_out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.mlp_in, self.mlp_out = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(4 * dim, dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, context, dim = hidden.shape
        qkv = self.qkv(self.attention_norm(hidden)).view(batch, context, 3, self.heads, -1)
        mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), is_causal=True)
        hidden = hidden + self.dropout(self.attention_out(mixed.transpose(1, 2).reshape(batch, context, dim)))
        return hidden + self.dropout(self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(hidden)))))
