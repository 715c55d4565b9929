"""Whether a call runs on Triton kernels or on PyTorch's own operations."""

import os
import warnings
from functools import cache
from importlib.util import find_spec

import torch

from costbank.errors import UsageError
from costbank.loss.options import EMOOptions

__all__ = ["uses_kernels"]

_INSTALL = "install Triton, which PyTorch for CUDA brings with it: pip install 'costbank[gpu]'"


def uses_kernels(options: EMOOptions, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a call's blocks run on Triton kernels: `options.kernels`, or as `auto` on CUDA, if sums are float32.

    Args:
        options: the options of the call.
        device: of the logits.
        dtype: of sums.

    Raises:
        UsageError: kernels are requested, but Triton is missing, sums are float64, or the device is a CPU without
            Triton's interpreter.
    """
    if options.kernels == "torch" or (options.kernels == "auto" and device.type != "cuda"):
        return False
    if options.kernels == "auto":
        if dtype == torch.float32 and not _is_installed():
            _warn_once()
        return dtype == torch.float32 and _is_installed()
    if dtype != torch.float32:
        raise UsageError("kernels='triton' cannot sum in float64", "omit accumulate='float64', or use kernels='torch'")
    if not _is_installed():
        raise UsageError("kernels='triton', but Triton is not installed", _INSTALL)
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise UsageError(
            "kernels='triton' on a CPU",
            "use kernels='auto'; to run the kernels slowly in Triton's interpreter, set TRITON_INTERPRET=1",
        )
    return True


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


@cache
def _warn_once() -> None:
    warnings.warn(f"losses on CUDA run without Triton's kernels, which are faster; {_INSTALL}", stacklevel=2)
