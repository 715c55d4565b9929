"""Conversions of every floating-point type, against torch, ml_dtypes and the definition of the type."""

import warnings

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from costbank.element_types import ELEMENT_TYPES, FLOAT_TYPES, float_type_of, from_float32, to_float32

TORCH = {name: getattr(torch, ELEMENT_TYPES[name].float_name) for name in FLOAT_TYPES}
QUIET, SIGNALING = 0x7FC00000, 0x7F800001
SPECIAL_BITS = [
    *(0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x10000, 0x007FFFFF, 0x00800000),  # zero, subnormals, the least normal
    *(0x3F800000, 0x3F807FFF, 0x3F808000, 0x3F808001, 0x3F818000, 0x3F817FFF),  # around ties, to even down and up
    *(0x7F7F0000, 0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0x7F800000),  # the largest of BF16 and F32, and infinity
    *(QUIET, SIGNALING, 0x7F80FFFF, 0x7F810000, 0x7FBFFFFF, 0x7FFFFFFF),  # NaN: quiet, signaling, any payload
]


def _special() -> np.ndarray:
    """Every upper half of a float32 with lower halves around ties, and special values of both signs, as float32."""
    upper = np.arange(1 << 16, dtype=np.uint32)[:, None] << 16
    grid = (upper | np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).ravel()
    special = np.array(SPECIAL_BITS, np.uint32)
    return np.concatenate([grid, special, special | np.uint32(1 << 31)]).view(np.float32)


def test_every_value_of_16_bits_becomes_the_float32_that_has_it_as_its_upper_half():
    stored = np.arange(1 << 16, dtype=np.uint16)
    assert np.array_equal(to_float32(stored, "BF16").view(np.uint32), stored.astype(np.uint32) << 16)


@pytest.mark.parametrize("name", sorted(FLOAT_TYPES))
def test_stored_values_are_read_as_torch_reads_them(name: str):
    known = ELEMENT_TYPES[name]
    count = 1 << min(known.bits, 16)
    raw = np.random.default_rng(1).integers(0, 256, count * known.bits // 8, dtype=np.uint8)
    every = np.arange(count).astype(f"u{known.bits // 8}").view(known.dtype)
    stored = every if known.bits <= 16 else raw.view(known.dtype)
    expected = torch.from_numpy(stored.copy().view(np.uint8)).view(TORCH[name]).float().numpy()
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(to_float32(stored, name), expected)


@pytest.mark.parametrize("name", sorted(FLOAT_TYPES - {"F64"}))
def test_rounding_is_that_of_torch_for_all_special_values(name: str):
    values = _special()
    if name == "F8_E4M3":  # this type has no infinity; torch converts larger values to its largest value
        values = values[~(np.abs(values) > 448)]
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = to_float32(from_float32(values, name), name)
    expected = torch.from_numpy(values.copy()).to(TORCH[name]).float().numpy()
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    real = ~np.isnan(expected)
    assert np.array_equal(actual[real].view(np.uint32), expected[real].view(np.uint32))  # the sign of zero too


def test_bf16_has_the_bits_of_ml_dtypes_and_every_nan_stays_one():
    values = _special()
    stored = from_float32(values, "BF16")
    with np.errstate(invalid="ignore"):
        assert np.array_equal(stored, values.astype(ml_dtypes.bfloat16).view(np.uint16))
    assert np.array_equal(np.isnan(to_float32(stored, "BF16")), np.isnan(values))
    assert np.array_equal(np.signbit(to_float32(stored, "BF16")), np.signbit(values))


@given(st.lists(st.floats(width=32), min_size=1))
def test_any_numbers_are_rounded_to_bf16_as_torch_rounds_them(values: list[float]):
    array = np.array(values, np.float32)
    expected = torch.tensor(array).bfloat16().float().numpy()
    np.testing.assert_array_equal(to_float32(from_float32(array, "BF16"), "BF16"), expected)


def test_rows_that_are_not_contiguous_are_converted_in_their_order():
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)
    for chosen in (rows.T, rows[:, ::2], rows[::-1]):
        for name in ("F32", "F16", "BF16"):
            assert np.array_equal(to_float32(from_float32(chosen, name), name), chosen)


def test_a_type_goes_by_the_name_that_torch_has_for_it():
    assert {float_type_of(str(kind).removeprefix("torch.")): kind for kind in TORCH.values()} == TORCH
    assert float_type_of("int64") is None
    assert float_type_of("float8_e4m3fnuz") is None
