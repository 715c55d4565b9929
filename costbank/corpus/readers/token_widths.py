"""Check the bit width of raw token ids, for files that do not state it.

When 32-bit ids are read as 16-bit ids, every second id is the upper half of a 32-bit id and nearly always 0. Samples
from both ends of a file are checked for this pattern.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from costbank.errors import CorpusError

__all__ = ["RAW_TYPES", "check_width", "other_reading", "width_note"]

RAW_TYPES = {"nanogpt": "<u2", "raw-u16": "<u2", "raw-u32": "<u4", "raw-u64": "<u8"}
"""Formats without a header, with the NumPy type of their ids. `nanogpt` is the default for `.bin` files."""

_MAX_16_BIT_VOCAB = 1 << 16
_SAMPLE_BYTES = 1 << 21
_MIN_LOWER_HALVES = 8
_MIN_LOWER_TO_UPPER = 20


class _Reading(NamedTuple):
    """A type of raw ids, and the advice for reading them."""

    dtype: str
    advice: str


_BIG_ENDIAN = "convert them: numpy.save('ids.npy', numpy.fromfile(…, '{dtype}'))"
_READINGS = tuple(
    _Reading(dtype, f"to read {8 * int(dtype[2])}-bit ids, use --set corpus.format={name}")
    for name, dtype in RAW_TYPES.items()
    if name != "nanogpt"
) + tuple(
    _Reading(dtype, f"the ids look big-endian; {_BIG_ENDIAN.format(dtype=dtype)}") for dtype in (">u2", ">u4", ">u8")
)


def check_width(shown: str, name: str, ids: Integer[np.ndarray, "tokens"], vocab_size: int) -> None:
    """Check that ids of a raw format have the width of the format. `raw-u16` is not checked.

    Args:
        shown: the name of the file in messages.
        name: the format.
        ids: the ids as they were read.
        vocab_size: the number of ids of the tokenizer.

    Raises:
        CorpusError: the ids are wider than the format, or the vocabulary has more ids than 16 bits can hold.
    """
    if name not in RAW_TYPES or name == "raw-u16":
        return
    bits = 8 * ids.dtype.itemsize
    wider = next((w for w in (64, 32) if bits < w and _are_halves(ids, w // bits, vocab_size)), None)
    override = "to force 16-bit ids, use raw-u16" if bits == 16 else "for other types, write the ids with numpy.save"
    if wider:
        zeros = "every second value is" if wider == 2 * bits else "three of every four values are"
        raise CorpusError(
            f"{shown} does not hold {bits}-bit ids: {zeros} nearly always 0, as in {wider}-bit ids",
            f"to read {wider}-bit ids, use --set corpus.format=raw-u{wider}; {override}",
        )
    if bits == 16 and vocab_size > _MAX_16_BIT_VOCAB:
        raise CorpusError(
            f"{shown} is read as 16-bit ids, which end at {_MAX_16_BIT_VOCAB - 1:,}, but the vocabulary has "
            f"{vocab_size:,} tokens",
            f"to read 32-bit ids, use --set corpus.format=raw-u32; {override}",
        )


def width_note(shown: str, ids: Integer[np.ndarray, "tokens"], vocab_size: int) -> str | None:
    """A note about a file with ids of a type that is too narrow for the vocabulary; None if the type is wide enough."""
    max_id = np.iinfo(ids.dtype).max
    if max_id >= vocab_size - 1:
        return None
    return (
        f"{shown} holds {8 * ids.dtype.itemsize}-bit ids, which end at {max_id:,}, but the vocabulary has "
        f"{vocab_size:,} tokens; if the tool that wrote the file truncated larger ids, they are now ids of other tokens"
    )


def other_reading(ids: Integer[np.ndarray, "tokens"], vocab_size: int) -> str:
    """Advice to read the raw bytes as another type, if that gives ids of this vocabulary; else an empty string."""
    data = np.ascontiguousarray(ids[: _SAMPLE_BYTES // ids.dtype.itemsize]).tobytes()
    total = ids.nbytes
    for dtype, advice in _READINGS:
        width = int(dtype[2])
        if total % width or np.dtype(dtype) == ids.dtype:
            continue
        values = np.frombuffer(data[: len(data) // width * width], dtype)
        fits = len(values) and int(values.max()) < vocab_size
        low_half_first = values[::-1] if dtype[0] == ">" else values
        if fits and not (width < 8 and _are_halves(low_half_first[: len(values) // 2 * 2], 2, vocab_size)):
            return advice
    return ""


def _are_halves(ids: Integer[np.ndarray, "tokens"], parts: int, vocab_size: int) -> bool:
    """Whether each group of `parts` ids is one wider id.

    If so, only the first id of a group can exceed the upper bits of the largest id.
    """
    size = _SAMPLE_BYTES // ids.dtype.itemsize
    samples = [ids] if len(ids) <= 2 * size else [ids[:size], ids[(len(ids) - size) // parts * parts :]]
    bits = 8 * ids.dtype.itemsize
    max_upper = min((vocab_size - 1) >> bits, np.iinfo(ids.dtype).max)
    lower = upper = 0
    for sample in samples:
        wide = sample[: len(sample) // parts * parts].reshape(-1, parts)
        lower += int(np.count_nonzero(wide[:, 0] > max_upper))
        upper += int(np.count_nonzero(wide[:, 1] > max_upper)) + int(np.count_nonzero(wide[:, 2:]))
    return lower >= _MIN_LOWER_HALVES and upper * _MIN_LOWER_TO_UPPER <= lower
