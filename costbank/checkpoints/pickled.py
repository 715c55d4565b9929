"""Matrices in PyTorch files. Only tensors are unpickled."""

from pathlib import Path
from typing import Any

import numpy as np

from costbank.checkpoints.base import Matrix, TensorInfo, row_decoder
from costbank.element_types import float_type_of
from costbank.errors import CheckpointError, require

__all__ = ["pickled_infos", "pickled_tensors", "torch_matrix"]


def pickled_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a file that `torch.save` wrote, mapped from disk if its format allows it.

    Raises:
        CheckpointError: the file is cut short, or contains more than weights.
        MissingExtraError: torch is not installed.
    """
    torch = require("torch", "train")
    try:
        content = _load(torch, path)
    except Exception as error:  # the unpickler can raise anything
        raise CheckpointError(
            f"{path} is not a file of weights: {(str(error) or type(error).__name__).splitlines()[0][:160]}",
            "give a checkpoint that torch.load(…, weights_only=True) can read; convert others to safetensors",
        ) from None
    for _ in range(2):  # training checkpoints have the weights under a key
        if isinstance(content, dict) and not any(isinstance(value, torch.Tensor) for value in content.values()):
            content = next((content[key] for key in ("state_dict", "model", "module") if key in content), content)
    tensors = (
        {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)} if isinstance(content, dict) else {}
    )
    if not tensors:
        raise CheckpointError(f"{path} contains no named tensors", "give a file with the state dict of a model")
    return tensors


def pickled_infos(path: Path) -> dict[str, TensorInfo]:
    """The element type and the shape of each tensor of a file, by name. Raises the errors of `pickled_tensors`."""
    tensors = pickled_tensors(path)
    return {name: TensorInfo(_dtype_name(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()}


def torch_matrix(path: Path, name: str, tensor: Any) -> Matrix:
    """One of these tensors as a matrix.

    Raises:
        CheckpointError: it is not a matrix, or its elements are not floating point.
    """
    torch = require("torch", "train")
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise CheckpointError(
            f"tensor {name!r} in {path} is sparse or quantized", "save it as a dense tensor of floats"
        )
    if tensor.ndim != 2 or not tensor.numel():
        raise CheckpointError(
            f"tensor {name!r} in {path} has the shape {list(tensor.shape)}", "give a matrix with a row for each token"
        )
    dtype = float_type_of(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise CheckpointError(
            f"tensor {name!r} in {path} has the dtype {tensor.dtype}, which is not floating point",
            "dequantize the checkpoint first, or choose another tensor with --tensor",
        )

    def read(start: int, stop: int) -> np.ndarray:
        return tensor[start:stop].detach().contiguous().view(torch.uint8).flatten().numpy()

    rows, dim = tensor.shape
    return Matrix(name, path, dtype, (rows, dim), read, row_decoder(dtype, dim))


def _dtype_name(tensor: Any) -> str:
    """The name of the dtype in safetensors; PyTorch's name in capitals if safetensors has none."""
    name = str(tensor.dtype).removeprefix("torch.")
    return float_type_of(name) or name.upper()


def _load(torch: Any, path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)
