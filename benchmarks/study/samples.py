"""Samples of a trained model: how much they repeat themselves, and how close they are to the held-out text."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from benchmarks.study.model import Decoder
from benchmarks.study.pretrained import Pretrained
from costbank.vocab import TokenStatus, Vocab

__all__ = ["Mauve", "continuations", "repetition"]

_BATCH = 128
_QUANTIZATIONS = 5


@torch.no_grad()
def continuations(
    model: Decoder | Pretrained, prompts: Int64[Tensor, "n prompt"], length: int, temperature: float = 1.0
) -> Int64[Tensor, "n length"]:
    """Tokens that follow prompts, drawn from all of the model's probabilities. The same call draws the same tokens."""
    generator, device = torch.Generator().manual_seed(0), model.embedding.weight.device
    model.eval()
    parts = []
    for start in range(0, len(prompts), _BATCH):
        ids, state, drawn = prompts[start : start + _BATCH], None, []
        for _ in range(length):
            hidden, state = model.next_hidden(ids.to(device), state)
            probabilities = (hidden @ model.embedding.weight.T / temperature).softmax(1).cpu()
            ids = torch.multinomial(probabilities, 1, generator=generator)
            drawn.append(ids)
        parts.append(torch.cat(drawn, dim=1))
    return torch.cat(parts)


def repetition(ids: Int64[Tensor, "n length"]) -> dict[str, float]:
    """The share of distinct bigrams, and the mean number of tokens among the eight before a token that equal it."""
    pairs = torch.stack([ids[:, :-1], ids[:, 1:]], dim=2).flatten(0, 1)
    repeated = torch.stack(
        [(ids[:, i:] == ids[:, : ids.shape[1] - i]).float().mean() for i in range(1, min(9, ids.shape[1]))]
    )
    return {"distinct-2": len(torch.unique(pairs, dim=0)) / len(pairs), "repetition": float(repeated.sum())}


class Mauve:
    """MAUVE (Pillutla et al. 2021) of samples against a text: from 0, nothing alike, to 1.

    It depends on the number and the length of the texts and on the encoder, so only values of one table compare.

    Args:
        encoder: the folder of a sentence encoder, for the features of the texts.
        vocab: the tokens' bytes.
        prompts: the tokens before each text. They belong to the features of both sides.
        text: the tokens that follow in the held-out text.
    """

    def __init__(
        self, encoder: Path, vocab: Vocab, prompts: Int64[Tensor, "n prompt"], text: Int64[Tensor, "n length"]
    ) -> None:
        import mauve
        from sentence_transformers import SentenceTransformer

        self._mauve, self._vocab, self._prompts = mauve, vocab, prompts
        self._encoder = SentenceTransformer(str(encoder), device="cpu", local_files_only=True)
        self._features = self._features_of(text)

    def __call__(self, samples: Int64[Tensor, "n length"]) -> float:
        """The mean over five quantizations of the features, which differ in their seeds."""
        features: dict[str, Any] = {"p_features": self._features, "q_features": self._features_of(samples)}
        scores = [self._mauve.compute_mauve(**features, seed=seed).mauve for seed in range(_QUANTIZATIONS)]
        return float(np.mean(scores))

    def _features_of(self, ids: Int64[Tensor, "n length"]) -> Float[np.ndarray, "n dim"]:
        rows = torch.cat([self._prompts, ids], dim=1).tolist()
        texts = [b"".join(map(self._bytes_of, row)).decode(errors="replace") for row in rows]
        return self._encoder.encode(texts, convert_to_numpy=True, show_progress_bar=False)

    def _bytes_of(self, token_id: int) -> bytes:
        """The bytes of a token; a newline for special tokens, such as the end of a line, and ids beyond the tokens."""
        is_token = token_id < self._vocab.size and self._vocab.status[token_id] != TokenStatus.SPECIAL
        return self._vocab.token(token_id) if is_token else b"\n"
