import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costbank.element_types import from_float32
from costbank.errors import CheckpointError, CorruptBankError, ShapeError
from costbank.files import sha256_file
from costbank.tensorfile import TensorSpec, map_tensors, read_header, write_tensors


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
def test_files_of_the_safetensors_library_are_mapped(tmp_path: Path, dtype: torch.dtype):
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"rows": rows, "ids": torch.arange(3)}, path, metadata={"format": "pt"})
    tensors = map_tensors(path)
    assert set(tensors) == {"rows", "ids"}
    assert np.array_equal(tensors["rows"].float32(slice(2, 5)), rows[2:5].float().numpy())
    assert not tensors["rows"].data.flags.writeable


def test_missing_rows_are_refused(tmp_path: Path):
    with pytest.raises(ShapeError, match="has 24 bytes, but 12 were given"):
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
    "a dtype that is not text": _file(_header(dtype=[1]), b"\0" * 8),
    "no offsets": _file(json.dumps({"t": {"dtype": "F32", "shape": [2]}}).encode(), b"\0" * 8),
    "bytes after the last tensor": _file(_header(), b"\0" * 9),
    "data without a tensor": _file(b"{}", b"\0"),
    "a hole before the first tensor": _file(_header(data_offsets=[4, 12]), b"\0" * 12),
    "an empty tensor in the wrong place": _file(_header(shape=[0], data_offsets=[4, 4]), b"\0" * 4),
    "tensors that share bytes": _file(
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}',
        b"\0" * 6,
    ),
    "one name twice": _file(
        b'{"t":%s,"t":%s}' % ((json.dumps({"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}).encode(),) * 2), b"\0"
    ),
    "a header over 100 MB": _file(_header() + b" " * 100_000_000, b"\0" * 8),
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


PART = b'"dtype":"F32","shape":[2],"data_offsets":[0,8]'
HEADERS = {
    "spaces around": b' {"t":{%s}} \n\t\r',
    "an unknown field": b'{"t":{%s,"x":{"y":[-1,2.5,null]}}}',
    "an unknown field twice": b'{"t":{%s,"x":1,"x":2}}',
    "a field twice": b'{"t":{%s,"dtype":"F32"}}',
    "metadata twice": b'{"__metadata__":{},"__metadata__":{},"t":{%s}}',
    "no metadata": b'{"__metadata__":null,"t":{%s}}',
    "metadata of numbers": b'{"__metadata__":{"a":1},"t":{%s}}',
    "metadata in a list": b'{"__metadata__":[],"t":{%s}}',
    "a NUL after it": b'{"t":{%s}}\0',
    "a byte-order mark": b'\xef\xbb\xbf{"t":{%s}}',
    "half a surrogate pair": b'{"\\ud800":{%s}}',
    "a surrogate pair": b'{"\\ud83d\\ude00":{%s}}',
    "half a surrogate pair elsewhere": b'{"t":{%s,"x":["\\udc00"]}}',
    "a control character": b'{"a\nb":{%s}}',
    "NaN": b'{"t":{%s,"x":NaN}}',
    "200 lists": b'{"t":{%s,"x":' + b"[" * 200 + b"]" * 200 + b"}}",
    "90 lists": b'{"t":{%s,"x":' + b"[" * 90 + b"]" * 90 + b"}}",
    "UTF-16": '{"t":{}}'.encode("utf-16-le"),
    "a list for a tensor": b'{"t":["F32",[2],[0,8]]}',
}


def _accepted(content: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(content)
        try:
            read_header(path)
        except CorruptBankError:
            return False
    return True


def _library_accepts(content: bytes) -> bool:
    try:
        safetensors.deserialize(content)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_odd_headers_are_accepted_as_the_library_accepts_them(header: bytes):
    content = _file(header.replace(b"%s", PART), b"\0" * 8)
    assert _accepted(content) == (_library_accepts(content) and not header.startswith(b'{"t":["'))


@pytest.mark.parametrize("number", ["2", "2.0", "2e0", '"2"', "true", "-0", "-2", "02", str(1 << 64), "null", "[2]"])
@pytest.mark.parametrize("field", ["shape", "data_offsets"])
def test_numbers_are_accepted_as_the_library_accepts_them(number: str, field: str):
    header = {"shape": "[2]", "data_offsets": "[0,8]"} | {field: f"[{number}]" if field == "shape" else f"[0,{number}]"}
    entry = ",".join(f'"{key}":{value}' for key, value in header.items())
    for size in (2, 8):
        content = _file(f'{{"t":{{"dtype":"U8","shape":[{8}],{entry}}}}}'.encode(), b"\0" * size)
        assert not _accepted(content)
        content = _file(f'{{"t":{{"dtype":"{"F32" if size == 8 else "U8"}",{entry}}}}}'.encode(), b"\0" * size)
        assert _accepted(content) == _library_accepts(content)


LIBRARY_DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "F8_E4M3",
                  "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4", "C64"]  # fmt: skip
SIZES = st.one_of(st.integers(0, 9), st.sampled_from([1 << 32, 1 << 62, (1 << 64) - 1, 1 << 64, -1]))
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(LIBRARY_DTYPES),
        "shape": st.lists(SIZES, max_size=3),
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2),
    }
)


@given(st.dictionaries(st.sampled_from("abc"), ENTRIES, max_size=3), st.integers(0, 24))
@settings(max_examples=300, deadline=None)
@example({"a": {"dtype": "U8", "shape": [0, 1 << 63, 4], "data_offsets": [0, 0]}}, 0)
@example({"a": {"dtype": "U8", "shape": [1 << 63, 4, 0], "data_offsets": [0, 0]}}, 0)
@example({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, 2)
def test_any_layout_is_accepted_exactly_where_the_library_accepts_it(header: dict, data_bytes: int):
    content = _file(json.dumps(header).encode(), b"\0" * data_bytes)
    assert _accepted(content) == _library_accepts(content)


@given(
    st.lists(st.tuples(st.sampled_from(LIBRARY_DTYPES), st.integers(0, 3)), min_size=1, max_size=4),
    st.sampled_from(["right", "a byte more", "a byte less", "a hole", "swapped"]),
)
@settings(max_examples=200, deadline=None)
def test_a_layout_that_is_right_is_accepted_and_its_relatives_as_the_library_does(layout: list, change: str):
    header, at = {}, 0
    for number, (dtype, rows) in enumerate(layout):
        bits = {"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
                "I16": 16, "U16": 16, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}.get(dtype, 8)  # fmt: skip
        begin = at + (change == "a hole" and number == len(layout) - 1)
        at = begin + rows * bits
        header[f"t{number}"] = {"dtype": dtype, "shape": [rows, 8], "data_offsets": [begin, at]}
    size = at + {"a byte more": 1, "a byte less": -1}.get(change, 0)
    if change == "swapped":
        header = dict(reversed(header.items()))
    content = _file(json.dumps(header).encode(), b"\0" * max(size, 0))
    assert _accepted(content) == _library_accepts(content)
    assert _accepted(content) or change not in ("right", "swapped")


def test_a_header_changed_at_any_byte_is_accepted_only_where_the_library_accepts_it():
    header = b'{"a":{%s},"__metadata__":{"k":"v"}}' % PART
    for at in range(len(header)):
        for byte in b'\0 "0129-,.:[]{}\\aeFtu\xff':
            content = _file(header[:at] + bytes([byte]) + header[at + 1 :], b"\0" * 8)
            library, known = _library_accepts(content), any(f'"{name}"'.encode() in content for name in LIBRARY_DTYPES)
            assert _accepted(content) == library or not known


def test_a_tensor_of_a_dtype_from_the_future_hinders_no_other(tmp_path: Path):
    entries = {
        "new": {"dtype": "U3", "shape": [9], "data_offsets": [0, 4]},
        "t": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(_file(json.dumps(entries).encode(), b"\0" * 12))
    assert set(read_header(path).entries) == {"new", "t"}


def test_the_hint_for_extra_bytes_and_gaps_says_what_to_do(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    good = _file(_header(), b"\1" * 8)
    path.write_bytes(good + b"\0" * 5)
    with pytest.raises(CheckpointError, match="5 bytes follow its last tensor") as caught:
        read_header(path, CheckpointError, "download it again")
    assert f"truncate -s {len(good)}" in caught.value.hint
    path.write_bytes(_file(_header(data_offsets=[4, 12]), b"\0" * 12))
    with pytest.raises(CheckpointError, match="bytes 0 to 4 of its data, before tensor 't'") as caught:
        read_header(path, CheckpointError, "download it again")
    assert "save it again" in caught.value.hint


def test_a_file_rewritten_as_text_is_refused(tmp_path: Path):
    """Programs that treat a file as Latin-1 text write every byte from 0x80 on as two bytes."""
    header = b'{"model.embed_tokens.weight":{"dtype":"F16","shape":[60,16],"data_offsets":[0,1920]}}'
    rows = np.random.default_rng(0).standard_normal(960).astype("<f2").tobytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(_file(header, rows.decode("latin-1").encode()))
    with pytest.raises(CorruptBankError, match="bytes follow its last tensor"):
        map_tensors(path)
