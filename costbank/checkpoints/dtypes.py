"""Stored bytes of floating-point rows as float32, without torch."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8

__all__ = ["DECODED", "decoder"]


def _e4m3_values() -> Float32[np.ndarray, "256"]:
    """F8_E4M3 (Micikevicius et al. 2022, table 1): bias 7, no infinities, NaN where all bits but the sign are set."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    size = np.where(exponent > 0, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa / 8 * 2.0**-6)
    size[(codes & 127) == 127] = np.nan
    return np.where(codes >= 128, -size, size).astype(np.float32)


_E4M3 = _e4m3_values()


def _bf16(raw: UInt8[np.ndarray, "bytes"]) -> Float32[np.ndarray, "elements"]:
    wide = np.zeros(raw.size // 2, np.uint32)
    wide.view(np.uint16)[1::2] = raw.view("<u2")
    return wide.view(np.float32)


def _e5m2(raw: UInt8[np.ndarray, "bytes"]) -> Float32[np.ndarray, "elements"]:
    """F8_E5M2 is the upper byte of a float16."""
    return (raw.astype(np.uint16) << 8).view(np.float16).astype(np.float32)


def _f64(raw: UInt8[np.ndarray, "bytes"]) -> Float32[np.ndarray, "elements"]:
    with np.errstate(over="ignore"):  # beyond float32 is infinity, which is refused where rows are measured
        return raw.view("<f8").astype(np.float32)


DECODED: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "F64": (8, _f64),
    "F32": (4, lambda raw: raw.view("<f4").astype(np.float32, copy=False)),
    "F16": (2, lambda raw: raw.view("<f2").astype(np.float32)),
    "BF16": (2, _bf16),
    "F8_E4M3": (1, lambda raw: _E4M3[raw]),
    "F8_E5M2": (1, _e5m2),
}
"""Bytes an element, and bytes to float32, by the names that safetensors gives the types."""


def decoder(dtype: str, dim: int) -> Callable[[UInt8[np.ndarray, "bytes"]], Float32[np.ndarray, "rows dim"]]:
    """Stored bytes of whole rows to float32 rows."""
    decode = DECODED[dtype][1]
    return lambda raw: decode(raw).reshape(-1, dim)
