"""A pretrained model, for the settings that train one further."""

from pathlib import Path
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn

__all__ = ["Pretrained"]


class Pretrained(nn.Module):
    """Token ids in, hidden states out, like `Decoder`; the logits are `hidden @ embedding.weight.T`.

    Args:
        path: a Hugging Face folder, whose weights are read as float32.
    """

    def __init__(self, path: Path) -> None:
        from transformers import AutoModelForCausalLM

        super().__init__()
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype="float32", local_files_only=True)
        self.model.config.use_cache = False

    @property
    def embedding(self) -> Any:
        """The module whose weight is the head."""
        return self.model.get_output_embeddings()

    def forward(self, ids: Int64[Tensor, "batch context"]) -> Float[Tensor, "batch context dim"]:
        return self.model.base_model(ids).last_hidden_state

    def next_hidden(self, ids: Int64[Tensor, "batch new"], state: Any) -> tuple[Float[Tensor, "batch dim"], Any]:
        """As of `Decoder`; the state is the keys and values of the tokens so far."""
        output = self.model.base_model(ids, past_key_values=state, use_cache=True)
        return output.last_hidden_state[:, -1], output.past_key_values
