"""Start a model's input embedding from the vectors of a bank."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError

__all__ = ["initial_embedding", "start_from_bank"]


def start_from_bank(model: Any, bank: Bank, *, std: float | None = None, seed: int = 0) -> None:
    """Start a model's input embedding from a bank, in place, before it is trained from scratch.

    The rows of tokens with a vector become those of `initial_embedding`, in the head too if it is tied. The rows of
    other tokens, such as special tokens and the padding of the vocabulary, stay as they are.

    Args:
        model: a Hugging Face model, or another with `get_input_embeddings()`, before it is sharded or wrapped.
        bank: the bank; its row i is token id i.
        std: the standard deviation of the new rows; default: that of the rows that they replace.
        seed: of the rotation into the model's width.

    Raises:
        ShapeError: the embedding has fewer rows than the bank.
        UsageError: `std` is not positive, or the model has no rows in memory yet (the device `meta`).
    """
    weight = model.get_input_embeddings().weight
    if weight.is_meta:
        raise UsageError("the model's rows are on the device meta", "call start_from_bank once the model is in memory")
    if len(weight) < bank.size:
        raise ShapeError(
            f"the embedding has {len(weight):,} rows, and the bank has {bank.size:,} tokens",
            "use the bank of the model's own tokenizer",
        )
    with torch.no_grad():
        usable = torch.from_numpy(bank.usable).to(weight.device)
        replaced = weight[: bank.size][usable]
        size = float(replaced.float().std()) if std is None else std
        rows = initial_embedding(bank, weight.shape[1], std=size, seed=seed)
        weight[: bank.size][usable] = rows.to(weight)[usable]


def initial_embedding(
    bank: Bank, dim: int, *, vocab_size: int | None = None, std: float = 0.02, seed: int = 0
) -> Float[Tensor, "width dim"]:
    """Rows for an input embedding that have the cosines of a bank's vectors and the size of random rows.

    `model.get_input_embeddings().weight.data.copy_(initial_embedding(bank, dim))` starts from them. With tied weights,
    these rows are the head too. If the bank has more dimensions than the model, its first `dim` principal axes are
    kept, and cosines are approximate; if it has fewer, its vectors are rotated at random into the model's space, and
    cosines are exact.

    Args:
        bank: the bank; its row i is token id i.
        dim: the width of the model.
        vocab_size: the number of rows; default: the bank's size. Ids beyond the bank get random rows.
        std: the standard deviation of the numbers, over all of them; random rows, for tokens without a vector, have the
            same. Most models are initialized with 0.02.
        seed: of the rotation and of random rows.

    Raises:
        UsageError: `std` or `dim` is not positive.
        ShapeError: `vocab_size` is less than the bank's size.
    """
    if not (0 < std < math.inf and dim > 0):
        raise UsageError(f"dim is {dim} and std is {std}", "give positive numbers, such as dim=768, std=0.02")
    width = bank.size if vocab_size is None else vocab_size
    if width < bank.size:
        raise ShapeError(f"vocab_size is {width:,}, and the bank has {bank.size:,} tokens", "give its size or more")
    generator = torch.Generator().manual_seed(seed)
    rows = std * torch.randn(width, dim, generator=generator)
    vectors = torch.from_numpy(bank.vectors().copy())
    usable = vectors.any(dim=1).nonzero()[:, 0]
    mapped = vectors[usable] @ _axes(vectors, dim, generator)
    rows[usable] = mapped * (std / mapped.square().mean().sqrt().clamp_min(1e-12))
    return rows


def _axes(vectors: Float[Tensor, "vocab k"], dim: int, generator: torch.Generator) -> Float[Tensor, "k dim"]:
    """Orthonormal rows or columns: a random rotation into more dimensions, or the principal axes."""
    columns = vectors.shape[1]
    if columns <= dim:
        return torch.linalg.qr(torch.randn(dim, columns, generator=generator)).Q.T
    products = (vectors.T @ vectors).double()
    return torch.linalg.eigh(products).eigenvectors[:, -dim:].float()
