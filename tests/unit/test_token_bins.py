"""Token ids on disk, written here byte by byte in the formats of the tools that produce them."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from costbank.corpus.readers import CorpusFile, TokenBin, check_token_bin, open_token_bin
from costbank.corpus.readers.formats import FileFormat
from costbank.errors import CorpusError, InputError, UsageError

IDS = [5, 9, 0, 7, 7, 0, 3]


def _open(path: Path, kind: FileFormat, separator: int | None = None, vocab_size: int = 100, **sizes: int) -> TokenBin:
    return open_token_bin(CorpusFile(str(path), kind, "none", path.stat().st_size), vocab_size, separator, **sizes)


def _megatron(
    folder: Path,
    documents: Sequence[Sequence[Sequence[int]]],
    code: int = 8,
    letter: str = "H",
    pointers: Sequence[int] | None = None,
    document_index: Sequence[int] | None = None,
    version: int = 1,
) -> Path:
    """Documents of sequences of ids, as Megatron-LM's IndexedDatasetBuilder writes them."""
    sequences = [sequence for document in documents for sequence in document]
    ids = [token for sequence in sequences for token in sequence]
    lengths = [len(sequence) for sequence in sequences]
    size = struct.calcsize(letter)
    if pointers is None:
        pointers = [size * sum(lengths[:number]) for number in range(len(lengths))]
    if document_index is None:
        document_index = [0]
        for document in documents:
            document_index = [*document_index, document_index[-1] + len(document)]
    (folder / "x.bin").write_bytes(struct.pack(f"<{len(ids)}{letter}", *ids))
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", version, code, len(lengths), len(document_index))
    index += struct.pack(f"<{len(lengths)}i", *lengths) + struct.pack(f"<{len(lengths)}q", *pointers)
    (folder / "x.idx").write_bytes(index + struct.pack(f"<{len(document_index)}q", *document_index))
    return folder / "x.bin"


def _llmc(path: Path, ids: Sequence[int], magic: int = 20240520, version: int = 1, count: int | None = None) -> Path:
    header = [magic, version, len(ids) if count is None else count, *[0] * 253]
    letter = "H" if magic == 20240520 else "I"
    path.write_bytes(struct.pack("<256i", *header) + struct.pack(f"<{len(ids)}{letter}", *ids))
    return path


def _datatrove(path: Path, ids: Sequence[int], ends: Sequence[int], letter: str = "H") -> Path:
    path.write_bytes(struct.pack(f"<{len(ids)}{letter}", *ids))
    Path(f"{path}.index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    return path


def _raw(path: Path, ids: Sequence[int]) -> Path:
    path.write_bytes(struct.pack(f"<{len(ids)}H", *ids))
    return path


def _assert_holds(token_bin: TokenBin, ids: Sequence[int], ends: Sequence[int], dtype: str) -> None:
    assert token_bin.ids.tolist() == list(ids)
    assert token_bin.ends.tolist() == list(ends)
    assert token_bin.ids.dtype == np.dtype(dtype)
    assert token_bin.ends.dtype == np.int64
    assert not len(ids) or not token_bin.ids.flags.writeable
    assert not len(ids) or isinstance(_root(token_bin.ids), np.memmap)


def _root(array: np.ndarray) -> object:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


# Megatron

DOCUMENTS = [[[5, 9], [0]], [[7]], [], [[7, 0, 3], []]]


@pytest.mark.parametrize(
    ("code", "letter", "dtype"),
    [(1, "B", "u1"), (2, "b", "i1"), (3, "h", "i2"), (4, "i", "i4"), (5, "q", "i8"), (8, "H", "u2")],
)  # fmt: skip
def test_megatron_documents_end_where_their_last_sequence_does(tmp_path: Path, code: int, letter: str, dtype: str):
    path = _megatron(tmp_path, DOCUMENTS, code, letter)
    _assert_holds(_open(path, "megatron"), IDS, [3, 4, 4, 7], dtype)


def test_a_separator_changes_nothing_where_an_index_says_where_documents_end(tmp_path: Path):
    assert _open(_megatron(tmp_path, DOCUMENTS), "megatron", separator=7).ends.tolist() == [3, 4, 4, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pointers": [0, 4, 6, 10, 14]},
            r"x.idx .* sequence 3 starts at offset 10 of the ids, but the previous one ends at 8",
        ),
        ({"document_index": [0, 2, 3, 3]}, "documents do not cover its 5 sequences"),
        ({"document_index": [0]}, "documents do not cover its 5 sequences"),
        ({"document_index": []}, "documents do not cover its 5 sequences"),
        ({"document_index": [1, 5]}, "documents do not cover its 5 sequences"),
        ({"document_index": [0, 4, 2, 5]}, "documents do not cover its 5 sequences"),
        ({"code": 7}, "type code of its ids is 7, which is not an integer type"),
        ({"code": 99}, "type code of its ids is 99"),
        ({"code": 4}, r"sequence 1 starts at offset 4 of the ids, but the previous one ends at 8"),
        ({"version": 2}, "version 2"),
    ],
)
def test_a_megatron_index_that_makes_no_sense_is_refused(tmp_path: Path, options: dict, message: str):
    path = _megatron(tmp_path, DOCUMENTS, **options)
    with pytest.raises(CorpusError, match=message):
        _open(path, "megatron")


@pytest.mark.parametrize(
    ("change", "message"), [(-1, "truncated: it ends at offset 13"), (1, "extra bytes at offset 14")]
)
def test_a_megatron_index_of_other_data_is_refused(tmp_path: Path, change: int, message: str):
    path = _megatron(tmp_path, DOCUMENTS)
    path.write_bytes((path.read_bytes() + b"\0")[: 14 + change])
    with pytest.raises(CorpusError, match=rf"x\.bin .*{message}.* should have 14 bytes according to its index x\.idx"):
        _open(path, "megatron")


def test_a_megatron_index_cut_short_anywhere_is_refused(tmp_path: Path):
    path = _megatron(tmp_path, DOCUMENTS)
    index = path.with_suffix(".idx")
    whole = index.read_bytes()
    for length in range(len(whole)):
        index.write_bytes(whole[:length])
        with pytest.raises(CorpusError, match=r"x\.idx cannot be read as token ids"):
            _open(path, "megatron")


def test_a_megatron_index_with_modes_says_that_it_is_of_text_and_images(tmp_path: Path):
    path = _megatron(tmp_path, DOCUMENTS)
    index = path.with_suffix(".idx")
    index.write_bytes(index.read_bytes() + bytes(5))
    with pytest.raises(CorpusError, match="modes"):
        _open(path, "megatron")


@pytest.mark.parametrize("counts", [(1 << 63, 1), (1, 1 << 63), ((1 << 64) - 1, (1 << 64) - 1)])
def test_counts_that_no_file_can_have_are_refused(tmp_path: Path, counts: tuple[int, int]):
    path = _megatron(tmp_path, DOCUMENTS)
    index = path.with_suffix(".idx")
    index.write_bytes(index.read_bytes()[:18] + struct.pack("<QQ", *counts) + index.read_bytes()[34:])
    with pytest.raises(CorpusError, match="truncated: it ends"):
        _open(path, "megatron")


def test_a_sequence_of_a_length_below_0_is_refused(tmp_path: Path):
    path = _megatron(tmp_path, DOCUMENTS)
    index = path.with_suffix(".idx")
    content = bytearray(index.read_bytes())
    content[34 + 4 : 34 + 8] = struct.pack("<i", -1)
    index.write_bytes(content)
    with pytest.raises(CorpusError, match="sequence 1 has a length below 0"):
        _open(path, "megatron")


# llm.c and nanoGPT


@pytest.mark.parametrize(("magic", "version", "dtype"), [(20240520, 1, "u2"), (20240801, 7, "u4")])
def test_llmc_ids_follow_a_header(tmp_path: Path, magic: int, version: int, dtype: str):
    path = _llmc(tmp_path / "x.bin", IDS, magic, version)
    _assert_holds(_open(path, "llmc"), IDS, [7], dtype)
    _assert_holds(_open(path, "llmc", separator=0), IDS, [3, 6, 7], dtype)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 8}, "truncated: it ends at offset 1038, but should have 1040 bytes"),
        ({"count": 6}, "extra bytes at offset 1036"),
        ({"count": -1}, "extra bytes at offset 1022"),
        ({"version": 2}, "version 2, but only version 1 is supported"),
        ({"magic": 20240522}, "starts with 20240522"),
    ],
)
def test_an_llmc_header_that_does_not_fit_is_refused(tmp_path: Path, options: dict, message: str):
    with pytest.raises(CorpusError, match=message):
        _open(_llmc(tmp_path / "x.bin", IDS, **options), "llmc")


def test_an_llmc_file_without_a_whole_header_is_refused(tmp_path: Path):
    path = _llmc(tmp_path / "x.bin", IDS)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CorpusError, match="truncated at offset 1000, within its header"):
        _open(path, "llmc")


def test_nanogpt_ids_are_the_file(tmp_path: Path):
    path = _raw(tmp_path / "x.bin", IDS)
    _assert_holds(_open(path, "nanogpt"), IDS, [7], "u2")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CorpusError, match="15 bytes are not a whole number of 16-bit ids"):
        _open(path, "nanogpt")


@pytest.mark.parametrize("block_ids", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("ids", "ends"),
    [
        (IDS, [3, 6, 7]),
        ([5, 0], [2]),
        ([0, 0, 5], [1, 2, 3]),
        ([5, 5], [2]),
        ([0], [1]),
        ([], []),
    ],
)
def test_a_separator_ends_a_document_and_belongs_to_it(tmp_path: Path, ids: list[int], ends: list[int], block_ids: int):
    path = _raw(tmp_path / "x.bin", ids)
    assert _open(path, "nanogpt", separator=0, block_ids=block_ids).ends.tolist() == ends


def test_a_separator_outside_the_vocabulary_is_refused(tmp_path: Path):
    path = _raw(tmp_path / "x.bin", IDS)
    for separator in (-1, 100, 70_000):
        with pytest.raises(UsageError, match=f"the separator {separator} is not an id"):
            _open(path, "nanogpt", separator=separator)
    assert _open(path, "raw-u16", separator=70_000, vocab_size=80_000).ends.tolist() == [7]


# datatrove


@pytest.mark.parametrize(("letter", "dtype"), [("H", "u2"), ("I", "u4")])
def test_datatrove_documents_end_where_the_index_says(tmp_path: Path, letter: str, dtype: str):
    path = _datatrove(tmp_path / "x.ds", IDS, [3, 3, 7], letter)
    _assert_holds(_open(path, "datatrove"), IDS, [3, 3, 7], dtype)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([3, 6], r"x\.ds cannot .* 14 bytes, but its index x\.ds\.index has 6 ids"),
        ([], "has 0 ids"),
        ([4, 3, 7], "end at offset 8 is smaller"),
        ([(1 << 64) - 1], "14 bytes"),
        ([1 << 63, 7], "end at offset 8 is smaller"),
    ],
)
def test_a_datatrove_index_of_other_data_is_refused(tmp_path: Path, ends: list[int], message: str):
    with pytest.raises(CorpusError, match=message):
        _open(_datatrove(tmp_path / "x.ds", IDS, ends), "datatrove")


def test_a_datatrove_index_cut_short_is_refused(tmp_path: Path):
    path = _datatrove(tmp_path / "x.ds", IDS, [3, 7])
    Path(f"{path}.index").write_bytes(bytes(15))
    with pytest.raises(CorpusError, match=r"x\.ds\.index .* 15 bytes"):
        _open(path, "datatrove")


# NumPy


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "i8", "u8"])
def test_an_array_is_one_document_or_one_for_each_row(tmp_path: Path, dtype: str):
    path = tmp_path / "x.npy"
    np.save(path, np.array(IDS, dtype))
    _assert_holds(_open(path, "npy"), IDS, [7], dtype)
    _assert_holds(_open(path, "npy", separator=0), IDS, [3, 6, 7], dtype)
    np.save(path, np.array(IDS[:6], dtype).reshape(2, 3))
    _assert_holds(_open(path, "npy"), IDS[:6], [3, 6], dtype)


def test_an_array_of_nothing_has_no_ids(tmp_path: Path):
    for shape, ends in [((0,), []), ((0, 3), []), ((2, 0), [0, 0])]:
        np.save(tmp_path / "x.npy", np.zeros(shape, np.int32))
        token_bin = _open(tmp_path / "x.npy", "npy")
        assert (token_bin.ids.tolist(), token_bin.ends.tolist()) == ([], ends)
        token_bin.check_ids()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.float32), "type float32"),
        (np.zeros(3, bool), "type bool"),
        (np.zeros((2, 2, 2), np.int32), "shape .2, 2, 2."),
        (np.asfortranarray(np.zeros((3, 2), np.int32)), "Fortran"),
        (np.array(["a", {}], object), "cannot map"),
        (np.zeros((), np.int32), r"shape \(\)"),
    ],
)  # fmt: skip
def test_an_array_of_anything_else_is_refused(tmp_path: Path, array: np.ndarray, message: str):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(CorpusError, match=message):
        _open(tmp_path / "x.npy", "npy")


def test_an_array_cut_short_or_too_long_is_refused(tmp_path: Path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(100, dtype=np.uint16))
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:50], whole[:7], b"", b"text\n", whole + b"\0\0"):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=r"x\.npy cannot be read as token ids"):
            _open(path, "npy")


def test_several_arrays_in_one_file_are_refused(tmp_path: Path):
    np.savez(tmp_path / "x.npz", a=np.arange(3))
    with pytest.raises(CorpusError, match="cannot map"):
        _open(tmp_path / "x.npz", "npy")


# How wide raw ids are


def _dump(path: Path, ids: Sequence[int], dtype: str) -> Path:
    np.array(ids).astype(dtype).tofile(path)
    return path


@pytest.fixture
def many(random: np.random.Generator) -> np.ndarray:
    """1,000 ids of a small vocabulary that includes 0, with the frequencies of real tokens."""
    return np.minimum(random.zipf(1.3, 1_000) - 1, 29)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("nanogpt", "<u2"), ("raw-u16", "<u2"), ("raw-u32", "<u4"), ("raw-u32", "<i4"),
                        ("raw-u64", "<i8"), ("raw-u64", "<u8")]
)  # fmt: skip
def test_raw_ids_are_the_file_in_the_width_that_is_named(
    tmp_path: Path, many: np.ndarray, kind: FileFormat, dtype: str
):
    token_bin = _open(_dump(tmp_path / "x.bin", many, dtype), kind, separator=0, vocab_size=30)
    assert token_bin.ids.tolist() == many.tolist()
    assert token_bin.ends.tolist()[:-1] == (np.flatnonzero(many == 0) + 1).tolist()[: len(token_bin.ends) - 1]
    token_bin.check_ids()
    path = tmp_path / "x.bin"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CorpusError, match=f"not a whole number of {8 * int(dtype[2])}-bit ids"):
        _open(path, kind)


@pytest.mark.parametrize(
    ("kind", "dtype", "wider"),
    [("nanogpt", "<u4", 32), ("nanogpt", "<i4", 32), ("nanogpt", "<i8", 64), ("nanogpt", "<u8", 64),
     ("raw-u32", "<i8", 64)],
)  # fmt: skip
@pytest.mark.parametrize("count", [16, 1_000, 2_000_000])
def test_wider_ids_read_as_narrower_ones_are_refused(
    tmp_path: Path, random: np.random.Generator, kind: FileFormat, dtype: str, wider: int, count: int
):
    path = _dump(tmp_path / "x.bin", random.integers(1, 30, count), dtype)
    with pytest.raises(CorpusError, match=f"does not hold .*-bit ids: .* as in {wider}-bit ids") as caught:
        _open(path, kind, vocab_size=30)
    assert f"corpus.format=raw-u{wider}" in caught.value.hint
    assert ("raw-u16" in caught.value.hint) == (kind == "nanogpt")


def test_wider_ids_that_are_mostly_padding_are_refused(tmp_path: Path):
    ids = np.zeros(5_000, int)
    ids[::51] = 7
    with pytest.raises(CorpusError, match="as in 32-bit ids"):
        _open(_dump(tmp_path / "x.bin", ids, "<u4"), "nanogpt", vocab_size=30)


def test_a_vocabulary_that_16_bits_cannot_hold_needs_a_width(tmp_path: Path, random: np.random.Generator):
    ids = random.integers(0, 128_256, 1_000)
    path = _dump(tmp_path / "x.bin", ids, "<u4")
    with pytest.raises(CorpusError, match="as in 32-bit ids") as caught:
        _open(path, "nanogpt", vocab_size=128_256)
    assert "corpus.format=raw-u32" in caught.value.hint
    assert _open(path, "raw-u32", vocab_size=128_256).ids.tolist() == ids.tolist()
    narrow = random.integers(0, 65_536, 1_000)
    path = _dump(tmp_path / "x.bin", narrow, "<u2")
    message = "read as 16-bit ids, which end at 65,535, but the vocabulary has 128,256 tokens"
    with pytest.raises(CorpusError, match=message) as caught:
        _open(path, "nanogpt", vocab_size=128_256)
    assert "to force 16-bit ids, use raw-u16" in caught.value.hint
    assert _open(path, "raw-u16", vocab_size=128_256).ids.tolist() == narrow.tolist()
    assert _open(path, "nanogpt", vocab_size=65_536).ids.tolist() == narrow.tolist()


@pytest.mark.parametrize(
    "ids",
    [[5, 0], [5, 0] * 7, [0, 0] * 100, [0] * 99 + [7], [3, 0, 0, 0] * 50 + [0, 4] * 50, [*range(1, 30)] * 9],
    ids=["two", "few", "zeros", "one at the end", "both places", "no zero"],
)
def test_16_bit_ids_are_not_suspected(tmp_path: Path, ids: list[int]):
    assert _open(_dump(tmp_path / "x.bin", ids, "<u2"), "nanogpt", vocab_size=30).ids.tolist() == ids


def test_real_16_bit_ids_padded_with_zeros_are_not_suspected(tmp_path: Path, many: np.ndarray):
    rows = np.zeros((50, 400), int)
    rows[:, :20] = many.reshape(50, 20)
    assert _open(_dump(tmp_path / "x.bin", rows, "<u2"), "nanogpt", vocab_size=30).ids.tolist() == rows.ravel().tolist()


@pytest.mark.parametrize(
    ("kind", "dtype", "advice"),
    [("raw-u32", "<u2", "to read 16-bit ids, use --set corpus.format=raw-u16"),
     ("raw-u64", "<u2", "to read 16-bit ids, use --set corpus.format=raw-u16"),
     ("raw-u64", "<u4", "to read 32-bit ids, use --set corpus.format=raw-u32"),
     ("nanogpt", ">u2", "the ids look big-endian; convert them: numpy.save('ids.npy', numpy.fromfile(…, '>u2'))"),
     ("raw-u32", ">i4", "numpy.fromfile(…, '>u4')")],
)  # fmt: skip
def test_ids_out_of_range_are_read_in_every_other_way(
    tmp_path: Path, random: np.random.Generator, kind: FileFormat, dtype: str, advice: str
):
    path = _dump(tmp_path / "x.bin", random.integers(1, 200, 1_000), dtype)
    token_bin = _open(path, kind, vocab_size=200)
    with pytest.raises(CorpusError, match="has the id") as caught:
        token_bin.check_ids()
    assert advice in caught.value.hint


def test_ids_below_0_are_explained(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.array([5, -100, 7]))
    with pytest.raises(CorpusError, match="has the id -100 at position 1") as caught:
        _open(tmp_path / "x.npy", "npy").check_ids()
    assert "mask labels" in caught.value.hint


@pytest.mark.parametrize("dtype", ["<i4", ">i4", ">u2", "<i8", "|u1", "|i1"])
def test_an_array_states_its_type_and_order(tmp_path: Path, dtype: str):
    np.save(tmp_path / "x.npy", np.array(IDS, dtype))
    token_bin = _open(tmp_path / "x.npy", "npy")
    assert token_bin.ids.tolist() == IDS
    token_bin.check_ids()


@pytest.mark.parametrize(("dtype", "noted"), [("u2", True), ("i2", True), ("u4", False), ("i8", False)])
def test_a_stated_type_too_narrow_for_the_vocabulary_is_noted(tmp_path: Path, dtype: str, noted: bool):
    np.save(tmp_path / "x.npy", np.array(IDS, dtype))
    file = CorpusFile(str(tmp_path / "x.npy"), "npy", "none", 100)
    note = check_token_bin(file, 128_256)
    assert (note is not None) == noted
    assert not noted or f"{np.iinfo(dtype).max:,}, but the vocabulary has 128,256 tokens" in (note or "")
    assert check_token_bin(file, 30_000) is None


# Whose ids they are


@pytest.mark.parametrize("block_ids", [1, 3, 100])
@pytest.mark.parametrize(("ids", "at"), [([5, 9, 10, 11], 2), ([-1, 5], 0), ([1, 2, 3, 4, 5, -7], 5)])
def test_an_id_of_another_vocabulary_is_named(tmp_path: Path, ids: list[int], at: int, block_ids: int):
    np.save(tmp_path / "x.npy", np.array(ids, np.int32))
    token_bin = _open(tmp_path / "x.npy", "npy", vocab_size=10)
    with pytest.raises(CorpusError, match=rf"x.npy has the id {ids[at]} at position {at}, .* 10 tokens") as caught:
        token_bin.check_ids(block_ids=block_ids)
    assert "another tokenizer" in caught.value.hint


def test_ids_of_the_vocabulary_are_all_checked(tmp_path: Path):
    checked: list[int] = []
    _open(_raw(tmp_path / "x.bin", IDS), "nanogpt", vocab_size=10).check_ids(checked.append, block_ids=3)
    assert checked == [3, 3, 1]


def test_text_is_no_token_ids(tmp_path: Path):
    with pytest.raises(UsageError, match="holds text"):
        open_token_bin(CorpusFile("x.txt", "text", "none", 1), 100, None)


def test_a_file_that_has_gone_is_reported(tmp_path: Path):
    path = _datatrove(tmp_path / "x.ds", IDS, [7])
    Path(f"{path}.index").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        _open(path, "datatrove")
