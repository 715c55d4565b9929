"""The element types of tensors by their safetensors names: their sizes, and conversion to and from float32.

NumPy has neither BF16 nor F8. Arrays hold their raw bits, and ml_dtypes converts them. F8 is looked up in a table of
its 256 values, which takes a quarter of the time.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32, Shaped

__all__ = ["ELEMENT_TYPES", "FLOAT_TYPES", "ElementType", "float_type_of", "from_float32", "to_float32"]


@dataclass(frozen=True)
class ElementType:
    """An element type.

    Attributes:
        bits: the size of an element.
        storage: the NumPy type of arrays of stored elements; raw bits for BF16 and F8, empty for types that are never
            read.
        float_name: the name of a floating-point type in torch and ml_dtypes; empty for other types.
    """

    bits: int
    storage: str = ""
    float_name: str = ""

    @property
    def dtype(self) -> np.dtype:
        """`storage` as a NumPy dtype."""
        return np.dtype(self.storage)


ELEMENT_TYPES = {
    "F64": ElementType(64, "<f8", "float64"),
    "F32": ElementType(32, "<f4", "float32"),
    "F16": ElementType(16, "<f2", "float16"),
    "BF16": ElementType(16, "<u2", "bfloat16"),
    "F8_E4M3": ElementType(8, "u1", "float8_e4m3fn"),
    "F8_E5M2": ElementType(8, "u1", "float8_e5m2"),
    "F8_E4M3FNUZ": ElementType(8),
    "F8_E5M2FNUZ": ElementType(8),
    "F8_E8M0": ElementType(8),
    "F6_E2M3": ElementType(6),
    "F6_E3M2": ElementType(6),
    "F4": ElementType(4),
    "C64": ElementType(64),
    "I64": ElementType(64, "<i8"),
    "I32": ElementType(32, "<i4"),
    "I16": ElementType(16, "<i2"),
    "I8": ElementType(8, "i1"),
    "U64": ElementType(64, "<u8"),
    "U32": ElementType(32, "<u4"),
    "U16": ElementType(16, "<u2"),
    "U8": ElementType(8, "u1"),
    "BOOL": ElementType(8, "u1"),
}
"""Every type that a safetensors header may name."""

FLOAT_TYPES = frozenset(name for name, element_type in ELEMENT_TYPES.items() if element_type.float_name)
"""The types that `to_float32` and `from_float32` convert."""


def float_type_of(float_name: str) -> str | None:
    """The type with this name in torch, such as `bfloat16`; None for types that cannot be converted."""
    return next((name for name in FLOAT_TYPES if ELEMENT_TYPES[name].float_name == float_name), None)


def to_float32(stored: Shaped[np.ndarray, "*shape"], name: str) -> Float32[np.ndarray, "*shape"]:
    """Stored elements of a floating-point type as float32: exact, except for F64, which is rounded."""
    if ELEMENT_TYPES[name].bits == 8:
        return _f8_values(name)[stored]
    with np.errstate(over="ignore"):  # large F64 values become infinity, which the check of the rows refuses
        return stored.view(_number_type(name)).astype(np.float32, copy=False)


def from_float32(values: Float32[np.ndarray, "*shape"], name: str) -> Shaped[np.ndarray, "*shape"]:
    """Float32 as stored elements of a floating-point type, rounded to nearest, ties to even; NaN stays NaN."""
    with np.errstate(invalid="ignore"):  # NumPy would warn about NaN in a conversion by ml_dtypes
        return values.astype(_number_type(name), copy=False).view(ELEMENT_TYPES[name].dtype)


@cache
def _number_type(name: str) -> np.dtype:
    """The NumPy dtype of a type's numbers. ml_dtypes is imported only for types that NumPy does not have."""
    element_type = ELEMENT_TYPES[name]
    if element_type.dtype.kind == "f":
        return element_type.dtype
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, element_type.float_name))


@cache
def _f8_values(name: str) -> Float32[np.ndarray, "256"]:
    return np.arange(256, dtype=np.uint8).view(_number_type(name)).astype(np.float32)
