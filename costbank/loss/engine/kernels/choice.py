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

    With `auto`, a machine on which Triton is missing or fails runs PyTorch's operations, and a warning says so once.

    Args:
        options: the options of the call.
        device: of the logits.
        dtype: of sums.

    Raises:
        UsageError: kernels are requested, but Triton is missing, sums are float64, or the device is neither a CUDA
            device nor a CPU with Triton's interpreter.
    """
    if options.kernels == "auto":
        return device.type == "cuda" and dtype == torch.float32 and _works_on(device)
    if options.kernels == "torch":
        return False
    if dtype != torch.float32:
        raise UsageError("Triton kernels cannot sum in float64", "use kernels='auto', or float32 logits and sums")
    if not _is_installed():
        raise UsageError("kernels='triton', but Triton is not installed", _INSTALL)
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise UsageError(
            "kernels='triton' on a CPU",
            "use kernels='auto'; to run the kernels slowly in Triton's interpreter, set TRITON_INTERPRET=1",
        )
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"kernels='triton' on the device {device}", "use kernels='auto', or a CUDA device")
    return True


def _is_installed() -> bool:
    return find_spec("triton") is not None


def _works_on(device: torch.device) -> bool:
    """Whether Triton runs. While a CUDA graph is captured, that cannot be tried."""
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return _is_installed()
    return _works(device)


@cache
def _works(device: torch.device) -> bool:
    """Whether Triton is installed and runs on a CUDA device; otherwise warn."""
    if not _is_installed():
        warnings.warn(f"losses on CUDA run without Triton's kernels, which are faster; {_INSTALL}", stacklevel=2)
        return False
    try:
        return _is_probed(device)
    except Exception as error:
        # A container without a C compiler, or a device that Triton does not know, for example.
        warnings.warn(
            f"losses on {device} run without Triton's kernels, which failed: {type(error).__name__}: {error}; "
            "kernels='torch' avoids this warning",
            stacklevel=2,
        )
        return False


def _is_probed(device: torch.device) -> bool:
    """Run a kernel that writes 1."""
    from costbank.loss.engine.kernels.rows import probe

    with torch.cuda.device(device):
        out = torch.zeros(1, device=device)
        probe[(1,)](out)
        return out.item() == 1.0
