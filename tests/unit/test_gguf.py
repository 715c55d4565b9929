"""GGUF headers, compared with the format's own library, and files with false headers."""

import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from costbank.checkpoints import GGUFFile, choose_head, open_checkpoint
from costbank.errors import CheckpointError, TokenizerError
from costbank.tokenizers import load_tokenizer
from costbank.vocab import TokenStatus

ROWS, DIM = 12, 64
LITTLE, BIG = gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG


def _rows() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((ROWS, DIM)).astype(np.float32)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _written(path: Path, order: gguf.GGUFEndian = LITTLE, kind: str = "F32") -> Path:
    writer = gguf.GGUFWriter(path, "llama", endianess=order)
    writer.add_custom_alignment(64)
    writer.add_uint8("a.u8", 200)
    writer.add_int8("a.i8", -3)
    writer.add_uint16("a.u16", 60_000)
    writer.add_int16("a.i16", -300)
    writer.add_uint32("a.u32", 4_000_000_000)
    writer.add_int32("a.i32", -70_000)
    writer.add_uint64("a.u64", 1 << 60)
    writer.add_int64("a.i64", -(1 << 60))
    writer.add_float32("a.f32", 0.25)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "naïve")
    writer.add_array("a.strings", ["", "▁king", "a\0b"])
    writer.add_array("a.floats", [0.5, -1.5])
    writer.add_array("a.ints", [1, -2, 3])
    kind_of = gguf.GGMLQuantizationType[kind]
    writer.add_tensor("norm.weight", np.ones(3, np.float32))
    if kind == "F32":
        writer.add_tensor("output.weight", _rows())
    else:
        writer.add_tensor("output.weight", gguf.quants.quantize(_rows(), kind_of), raw_dtype=kind_of)
    _finish(writer)
    return path


@pytest.mark.parametrize("order", [LITTLE, BIG])
def test_metadata_and_places_are_those_that_the_library_finds(tmp_path: Path, order: gguf.GGUFEndian):
    path = _written(tmp_path / "m.gguf", order)
    ours, library = GGUFFile.open(path), gguf.GGUFReader(path)
    keys = [key for key in library.fields if not key.startswith("GGUF.")]
    assert set(ours.metadata) == set(keys)
    for key in keys:
        expected = library.fields[key].contents()
        if not isinstance(expected, list):
            assert ours.value(key) == expected
        elif isinstance(expected[0], str):
            assert [text.decode() for text in ours.strings(key) or []] == expected
        else:
            numbers = ours.numbers(key)
            assert numbers is not None
            assert numbers.tolist() == expected
    for tensor in library.tensors:
        _, place = ours.tensors[tensor.name]
        assert (place.begin, place.shape) == (tensor.data_offset, tuple(reversed(tensor.shape.tolist())))
    assert np.array_equal(ours.matrix("output.weight").rows(2, 7), _rows()[2:7])
    assert ours.strings("nowhere") is None
    assert ours.numbers("nowhere") is None
    assert ours.value("nowhere") is None


def _quantizable() -> list[str]:
    kinds = []
    for kind in gguf.GGMLQuantizationType:
        try:
            gguf.quants.quantize(np.zeros((1, 256), np.float32), kind)
        except NotImplementedError:
            continue
        kinds.append(kind.name)
    return kinds


@pytest.mark.parametrize("kind", _quantizable())
def test_rows_of_every_type_are_those_that_the_library_dequantizes(tmp_path: Path, kind: str):
    rows, kind_of = (
        np.random.default_rng(3).standard_normal((5, 256)).astype(np.float32),
        gguf.GGMLQuantizationType[kind],
    )
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("first.weight", np.ones(5, np.float32))
    stored = gguf.quants.quantize(rows, kind_of)
    writer.add_tensor("output.weight", stored, raw_dtype=kind_of)
    _finish(writer)
    matrix = GGUFFile.open(tmp_path / "m.gguf").matrix("output.weight")
    assert (matrix.dtype, matrix.shape) == (kind, rows.shape)
    expected = gguf.quants.dequantize(stored, kind_of)
    for start, stop in ((0, 5), (1, 2), (3, 5)):
        assert np.array_equal(matrix.rows(start, stop), expected[start:stop])


def test_quantized_rows_in_big_endian_order_are_refused(tmp_path: Path):
    path = _written(tmp_path / "m.gguf", BIG, "Q8_0")
    with pytest.raises(CheckpointError, match="quantized as Q8_0 in big-endian byte order") as caught:
        GGUFFile.open(path).matrix("output.weight")
    assert "gguf-convert-endian" in caught.value.hint


def test_version_2_is_read_and_other_versions_are_refused(tmp_path: Path):
    content = bytearray(_written(tmp_path / "m.gguf").read_bytes())
    for version, readable in ((2, True), (1, False), (4, False), (0, False)):
        content[4:8] = struct.pack("<I", version)
        path = tmp_path / f"{version}.gguf"
        path.write_bytes(content)
        if readable:
            assert np.array_equal(GGUFFile.open(path).matrix("output.weight").rows(0, ROWS), _rows())
        else:
            with pytest.raises(CheckpointError, match=f"GGUF version {version}"):
                GGUFFile.open(path)


def _string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _file(keys: list[bytes] = [], tensors: list[bytes] = [], data: bytes = b"") -> bytes:  # noqa: B006
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + data


def _tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def test_an_unknown_type_matters_only_where_it_is_read(tmp_path: Path):
    rows = _rows()
    tensors = [_tensor("blk.0.ffn_up.weight", (64, 64), 142, 0), _tensor("token_embd.weight", (DIM, ROWS), 0, 512)]
    path = tmp_path / "new.gguf"
    path.write_bytes(_file([], tensors, bytes(512) + rows.tobytes()))
    assert np.array_equal(choose_head(open_checkpoint(path)).matrix.rows(0, ROWS), rows)
    with pytest.raises(CheckpointError, match=r"'blk\.0\.ffn_up\.weight' in .*new\.gguf has the type 142") as caught:
        GGUFFile.open(path).matrix("blk.0.ffn_up.weight")
    assert "upgrade gguf" in caught.value.hint


LIES = {
    "more keys than bytes": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 62),
    "more tensors than bytes": b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0),
    "a key past the end": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<QQ", 1 << 63, 0),
    "a string past the end": _file([_string("a") + struct.pack("<IQ", 8, 1 << 40)]),
    "an array past the end": _file([_string("a") + struct.pack("<IIQ", 9, 4, 1 << 61)], data=bytes(99)),
    "strings past the end": _file([_string("a") + struct.pack("<IIQ", 9, 8, 1 << 61)], data=bytes(99)),
    "one string of many past the end": _file([_string("a") + struct.pack("<IIQQQQ", 9, 8, 3, 0, 1 << 62, 0)]),
    "arrays in arrays": _file([_string("a") + struct.pack("<IIQ", 9, 9, 1)], data=bytes(99)),
    "an unknown value type": _file([_string("a") + struct.pack("<II", 77, 0)]),
    "an unknown element type": _file([_string("a") + struct.pack("<IIQ", 9, 77, 1)], data=bytes(99)),
    "a key twice": _file([_string("a") + struct.pack("<II", 4, 0)] * 2),
    "a key that is not UTF-8": _file([_string(b"\xff\xfe") + struct.pack("<II", 4, 0)]),
    "an alignment of 0": _file([_string("general.alignment") + struct.pack("<II", 4, 0)]),
    "an alignment of 48": _file([_string("general.alignment") + struct.pack("<II", 4, 48)]),
    "an alignment in words": _file([_string("general.alignment") + struct.pack("<I", 8) + _string("32")]),
    "a tensor twice": _file([], [_tensor("a", (1,), 0, 0)] * 2, bytes(64)),
    "a tensor that begins past the end": _file([], [_tensor("a", (1,), 0, 1 << 62)], bytes(64)),
    "a tensor that ends past the end": _file([], [_tensor("a", (17,), 0, 0)], bytes(64)),
    "a tensor whose size overflows": _file([], [_tensor("a", (1 << 62, 1 << 62), 0, 0)], bytes(64)),
    "a thousand dimensions": _file([], [_string("a") + struct.pack("<I", 1000)], bytes(99)),
    "no header": b"GGUF" + bytes(4),
    "another file": b"PK\x03\x04" + bytes(64),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_a_file_with_a_false_header_is_refused_at_once_and_in_little_memory(tmp_path: Path, content: bytes):
    GGUFFile.open(_written(tmp_path / "fine.gguf"))  # imports the library before the time and memory are measured
    path = tmp_path / "lies.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"lies\.gguf") as caught:
        GGUFFile.open(path)
    assert time.perf_counter() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert caught.value.hint


def test_a_file_cut_anywhere_is_refused(tmp_path: Path):
    content = _written(tmp_path / "m.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in [*range(0, len(content) - ROWS * DIM * 4, 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.gguf"):
            GGUFFile.open(path)


def test_a_hole_of_a_terabyte_that_claims_strings_is_refused_at_once(tmp_path: Path):
    path = tmp_path / "hole.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _string("a") + struct.pack("<IIQ", 9, 8, 1 << 36))
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match="strings in a"):
        GGUFFile.open(path)
    assert time.perf_counter() - began < 1


def _with_tokens(path: Path, model: str, tokens: list[bytes], types: list[int]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_tensor("token_embd.weight", _rows()[: len(tokens)])
    _finish(writer)
    return path


def test_tokens_of_rwkv_are_unescaped(tmp_path: Path):
    pieces = [
        b"\n",
        b"\0",
        "你好".encode(),
        b"cat",
        b" cat",
        b"it's",
        b"back\\slash",
        b"\t\t\r",
        b"\xe4",
        b"\\n",
        b"'\"",
    ]
    stored = [b"<s>", *(repr(piece)[2:-1].encode() for piece in pieces)]
    vocab = load_tokenizer(_with_tokens(tmp_path / "m.gguf", "rwkv", stored, [3, *[1] * len(pieces)])).vocab
    assert [vocab.token(i) for i in range(vocab.size)] == [b"<s>", *pieces]
    assert vocab.status_of(0) == TokenStatus.SPECIAL
    assert [i for i in range(vocab.size) if vocab.status_of(i) == TokenStatus.BYTE] == [9]


@pytest.mark.parametrize("token", [b"ends in \\", b"\\x4", b"\\xzz"])
def test_a_broken_escape_is_named(tmp_path: Path, token: bytes):
    with pytest.raises(TokenizerError, match="broken escape"):
        load_tokenizer(_with_tokens(tmp_path / "m.gguf", "rwkv", [token], [1]))


def test_backslashes_of_other_models_are_left_alone(tmp_path: Path):
    vocab = load_tokenizer(_with_tokens(tmp_path / "m.gguf", "llama", [rb"\n"], [1])).vocab
    assert vocab.token(0) == rb"\n"


def test_a_tensor_in_two_files_of_a_series_is_refused(tmp_path: Path):
    for number in (1, 2):
        _written(tmp_path / f"m-{number:05d}-of-00002.gguf")
    with pytest.raises(CheckpointError, match=r"is in m-00001-of-00002\.gguf and in m-00002-of-00002\.gguf"):
        GGUFFile.open(tmp_path / "m-00001-of-00002.gguf")
