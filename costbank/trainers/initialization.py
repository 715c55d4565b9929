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
    tokens without a vector stay as they are, and so do rows beyond the bank and that of the padding token. A pretrained
    model would lose its embedding.

    Args:
        model: a Hugging Face model, or another with `get_input_embeddings()`, whose weight is [rows, width], before it
            is sharded, quantized or wrapped.
        bank: the bank; its row i is token id i.
        std: the standard deviation of the new rows; default: that of the rows that they replace.
        seed: of the rotation into the model's width.

    Raises:
        ShapeError: the embedding has fewer rows than the bank.
        UsageError: the model has no embedding whose rows can be set; the bank has no vectors; `std` is not positive, or
            it is not given and the rows that would be replaced do not vary.
    """
    embedding = _embedding(model)
    weight = embedding.weight
    if len(weight) < bank.size:
        raise ShapeError(
            f"the embedding has {len(weight):,} rows, and the bank has {bank.size:,} tokens",
            "use the bank of the model's own tokenizer",
        )
    with torch.no_grad():
        replaced = torch.tensor(bank.usable, device=weight.device)
        if (padding := getattr(embedding, "padding_idx", None)) is not None and padding < bank.size:
            replaced[padding] = False
        if not replaced.any():
            raise UsageError(
                "the bank has no vector for a token of the model", "use a bank of the model's own tokenizer"
            )
        own = weight[: bank.size]
        size = float(own[replaced].float().std()) if std is None else std
        if std is None and not size > 0:
            raise UsageError("the rows that the bank would replace do not vary", "give their size, such as std=0.02")
        own[replaced] = initial_embedding(bank, weight.shape[1], std=size, seed=seed).to(weight)[replaced]


def _embedding(model: Any) -> Any:
    """The module of a model's input embedding, whose whole rows are in memory, in a floating type."""
    try:
        embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    except NotImplementedError:  # from transformers, for a model in which it finds no embedding
        embedding = None
    weight: Tensor | None = getattr(embedding, "weight", None)
    if weight is None:
        raise UsageError(
            f"{type(model).__name__} does not say which part of it is the input embedding (get_input_embeddings)",
            "copy the rows of initial_embedding(bank, dim) into it",
        )
    is_part = hasattr(weight, "placements") or weight.numel() == 0 or (weight.ndim == 1 and weight.is_floating_point())
    if weight.is_meta or is_part:
        raise UsageError(
            "the rows of the input embedding are not in this process's memory, or only a part of them",
            "call start_from_bank after the model is created, and before it is sharded",
        )
    if weight.ndim != 2 or not weight.is_floating_point():
        raise UsageError(
            f"the input embedding is quantized: its weight is {str(weight.dtype).removeprefix('torch.')} "
            f"{list(weight.shape)}",
            "call start_from_bank before it is quantized",
        )
    return embedding


def initial_embedding(
    bank: Bank, dim: int, *, vocab_size: int | None = None, std: float = 0.02, seed: int = 0
) -> Float[Tensor, "width dim"]:
    """Rows for an input embedding that have the cosines of a bank's vectors and the size of random rows.

    `start_from_bank` puts them into a model. If the bank has more dimensions than the model, its first `dim` principal
    axes are kept, and cosines are approximate; if it has fewer, cosines are exact. In both cases the vectors are
    rotated at random into the model's space.

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
    """Orthonormal rows or columns: a random rotation into more dimensions, or of the principal axes."""
    columns = vectors.shape[1]
    rotation = torch.linalg.qr(torch.randn(dim, min(columns, dim), generator=generator)).Q
    if columns <= dim:
        return rotation.T
    products = (vectors.T @ vectors).double()
    return torch.linalg.eigh(products).eigenvectors[:, -dim:].float() @ rotation
