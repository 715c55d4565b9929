"""How wide raw token ids are: files that state no width are checked against the vocabulary.

Ids of 32 bits that are read as 16-bit ones become twice as many, of which every second is the upper half of an id and
nearly always 0. Samples from both ends of a file are searched for this.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from costbank.errors import CorpusError

__all__ = ["RAW_TYPES", "check_width", "other_reading", "width_note"]

RAW_TYPES = {"nanogpt": "<u2", "raw-u16": "<u2", "raw-u32": "<u4", "raw-u64": "<u8"}
"""Formats of ids alone, with the type of an id. `nanogpt` is assumed for any `.bin`; the others must be named."""

_MOST_16_BIT = 1 << 16
_SAMPLE_BYTES = 1 << 21
_FEWEST = 8
_TIMES_RARER = 20


class _Reading(NamedTuple):
    """A way to read raw ids, and how a person gets it."""

    dtype: str
    advice: str


_BIG_ENDIAN = "numpy.save('ids.npy', numpy.fromfile(…, '{dtype}')) writes an array that is read"
_READINGS = tuple(
    _Reading(dtype, f"--set corpus.format={name} reads {8 * int(dtype[2])}-bit ids")
    for name, dtype in RAW_TYPES.items()
    if name != "nanogpt"
) + tuple(
    _Reading(dtype, f"they look big-endian; {_BIG_ENDIAN.format(dtype=dtype)}") for dtype in (">u2", ">u4", ">u8")
)


def check_width(shown: str, name: str, ids: Integer[np.ndarray, "tokens"], vocab_size: int) -> None:
    """Refuse ids of a raw format that cannot be of its width. `raw-u16` is taken at its word.

    Raises:
        CorpusError: ids are wider than they were read, or 16 bits cannot hold this vocabulary's.
    """
    if name not in RAW_TYPES or name == "raw-u16":
        return
    bits = 8 * ids.dtype.itemsize
    wider = next((w for w in (64, 32) if bits < w and _are_halves(ids, w // bits, vocab_size)), None)
    insist = "raw-u16 reads 16-bit ids all the same" if bits == 16 else "numpy.save states the type of others"
    if wider:
        zeros = "every second one is" if wider == 2 * bits else "three of every four are"
        raise CorpusError(
            f"{shown} does not hold {bits}-bit ids: {zeros} nearly always 0, as in {wider}-bit ids",
            f"--set corpus.format=raw-u{wider} reads {wider}-bit ids; {insist}",
        )
    if bits == 16 and vocab_size > _MOST_16_BIT:
        raise CorpusError(
            f"{shown} is read as 16-bit ids, which end at {_MOST_16_BIT - 1:,}, and the vocabulary has {vocab_size:,} "
            "tokens",
            f"--set corpus.format=raw-u32 reads 32-bit ids; {insist}",
        )


def width_note(shown: str, ids: Integer[np.ndarray, "tokens"], vocab_size: int) -> str | None:
    """What to say of ids whose stated type is too narrow for the vocabulary."""
    most = np.iinfo(ids.dtype).max
    if most >= vocab_size - 1:
        return None
    return (
        f"{shown} holds ids of {8 * ids.dtype.itemsize} bits, which end at {most:,}, and the vocabulary has "
        f"{vocab_size:,} tokens; if the tool that wrote it cut larger ids short, they now stand for other tokens"
    )


def other_reading(ids: Integer[np.ndarray, "tokens"], vocab_size: int) -> str:
    """How raw bytes would be ids of this vocabulary, where they are not as they were read; else an empty string."""
    data = np.ascontiguousarray(ids[: _SAMPLE_BYTES // ids.dtype.itemsize]).tobytes()
    total = ids.nbytes
    for dtype, advice in _READINGS:
        width = int(dtype[2])
        if total % width or np.dtype(dtype) == ids.dtype:
            continue
        read = np.frombuffer(data[: len(data) // width * width], dtype)
        fits = len(read) and int(read.max()) < vocab_size
        from_low_to_high = read[::-1] if dtype[0] == ">" else read
        if fits and not (width < 8 and _are_halves(from_low_to_high[: len(read) // 2 * 2], 2, vocab_size)):
            return advice
    return ""


def _are_halves(ids: Integer[np.ndarray, "tokens"], parts: int, vocab_size: int) -> bool:
    """Whether ids are `parts` of wider ones: after the first part, nothing is larger than a wider id can have there."""
    sampled = _SAMPLE_BYTES // ids.dtype.itemsize
    samples = [ids] if len(ids) <= 2 * sampled else [ids[:sampled], ids[(len(ids) - sampled) // parts * parts :]]
    bits = 8 * ids.dtype.itemsize
    lower = upper = 0
    for sample in samples:
        whole = sample[: len(sample) // parts * parts].reshape(-1, parts)
        most_upper = min((vocab_size - 1) >> bits, np.iinfo(ids.dtype).max)
        lower += int(np.count_nonzero(whole[:, 0] > most_upper))
        upper += int(np.count_nonzero(whole[:, 1] > most_upper)) + int(np.count_nonzero(whole[:, 2:]))
    return lower >= _FEWEST and upper * _TIMES_RARER <= lower
