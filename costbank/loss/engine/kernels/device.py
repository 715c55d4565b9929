"""The device on which Triton launches a kernel."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["device_of"]


def device_of(tensor: Tensor) -> AbstractContextManager:
    """Triton launches on the current device, which may be another one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
