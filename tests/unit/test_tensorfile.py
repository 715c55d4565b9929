import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from costbank.errors import CorruptBankError, ShapeError
from costbank.tensorfile import TensorSpec, from_float32, map_tensors, sha256_file, write_tensors


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path, random: np.random.Generator):
    rows, ids = random.normal(size=(7, 3)).astype(np.float32), np.arange(5)
    path = tmp_path / "x.safetensors"
    digest = write_tensors(
        path,
        {
            "ids": (TensorSpec("I64", (5,)), [ids]),
            "rows": (TensorSpec("F32", (7, 3)), [rows[:4], rows[4:4], rows[4:]]),
            "half": (TensorSpec("BF16", (7, 3)), [from_float32(rows, "BF16")]),
            "none": (TensorSpec("U8", (0,)), []),
        },
    )
    read = safetensors.torch.load_file(path)
    assert torch.equal(read["rows"], torch.tensor(rows))
    assert torch.equal(read["ids"], torch.arange(5))
    assert torch.equal(read["half"], torch.tensor(rows).bfloat16())
    assert read["none"].shape == (0,)
    assert digest == sha256_file(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_the_safetensors_library_writes_is_mapped(tmp_path: Path, dtype: torch.dtype):
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"rows": rows, "ids": torch.arange(3)}, path, metadata={"format": "pt"})
    tensors = map_tensors(path)
    assert set(tensors) == {"rows", "ids"}
    assert np.array_equal(tensors["rows"].float32(slice(2, 5)), rows[2:5].float().numpy())
    assert not tensors["rows"].data.flags.writeable


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_bf16_rounds_as_torch_does(values: list[float]):
    array = np.array(values, np.float32)
    ours = (from_float32(array, "BF16").astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(ours, torch.tensor(array).bfloat16().float().numpy())


def test_missing_rows_are_refused(tmp_path: Path):
    with pytest.raises(ShapeError, match="takes 24 bytes, but 12 came"):
        write_tensors(tmp_path / "x", {"rows": (TensorSpec("F32", (2, 3)), [np.zeros((1, 3), np.float32)])})


def _file(header: bytes, data: bytes = b"", size: int | None = None) -> bytes:
    return (len(header) if size is None else size).to_bytes(8, "little") + header + data


def _header(**entry: object) -> bytes:
    return json.dumps({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry}).encode()


ATTACKS = {
    "empty": b"",
    "shorter than its length field": b"\x01\x00",
    "a header longer than the file": _file(b"{}", size=1 << 40),
    "a negative length": _file(b"{}", size=(1 << 64) - 1),
    "no JSON": _file(b"{nope"),
    "no object": _file(b"[1]"),
    "a pickle": b"\x80\x04\x95" + b"\0" * 40,
    "offsets past the end": _file(_header(data_offsets=[0, 8]), b"\0" * 7),
    "offsets that do not fit the shape": _file(_header(data_offsets=[0, 4]), b"\0" * 8),
    "negative offsets": _file(_header(data_offsets=[-8, 0]), b"\0" * 8),
    "a negative shape": _file(_header(shape=[-2], data_offsets=[8, 0]), b"\0" * 8),
    "an unknown dtype": _file(_header(dtype="F3"), b"\0" * 8),
    "a dtype that is no text": _file(_header(dtype=[1]), b"\0" * 8),
    "no offsets": _file(json.dumps({"t": {"dtype": "F32", "shape": [2]}}).encode(), b"\0" * 8),
    "a huge shape": _file(_header(shape=[1 << 62, 1 << 62]), b"\0" * 8),
}


@pytest.mark.parametrize("content", ATTACKS.values(), ids=ATTACKS)
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptBankError, match=r"broken\.safetensors"):
        map_tensors(path)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_streamed_rows_are_the_mapped_ones(tmp_path: Path, random: np.random.Generator, dtype: str):
    rows = random.standard_normal((50, 7)).astype(np.float32)
    other = ("other", (TensorSpec("U8", (3,)), [np.arange(3, dtype=np.uint8)]))
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"rows": (TensorSpec(dtype, rows.shape), [from_float32(rows, dtype)]), other[0]: other[1]})
    tensor = map_tensors(path)["rows"]
    with tensor.streamed(most_bytes=100) as streamed:
        for chosen in (slice(3, 9), np.array([49, 0, 7, 7]), np.array([], np.int64), slice(0, 50), np.arange(50)):
            assert np.array_equal(streamed(chosen), tensor.float32(chosen))
