"""Models on disk, written by the usual libraries."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from costbank.checkpoints import choose_head, open_checkpoint
from costbank.element_types import FLOAT_TYPES
from costbank.errors import CheckpointError, CostbankError, InputError, InputNotFoundError

ROWS, DIM = 37, 64
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(5))


def _head(path: Path, name: str | None = None):
    return choose_head(open_checkpoint(path), name)


def test_every_type_that_can_be_converted_is_tried_here():
    assert set(DTYPES) == FLOAT_TYPES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("container", ["model.safetensors", "pytorch_model.bin"])
def test_any_range_of_rows_of_any_dtype(tmp_path: Path, rows: torch.Tensor, dtype: str, container: str):
    stored = rows.to(DTYPES[dtype])
    tensors = {"lm_head.weight": stored, "model.norm.weight": torch.ones(DIM)}
    if container.endswith(".bin"):
        torch.save(tensors, tmp_path / container)
    else:
        save_file(tensors, tmp_path / container)
    matrix = _head(tmp_path).matrix
    assert (matrix.dtype, matrix.shape) == (dtype, (ROWS, DIM))
    for start, stop in ((0, ROWS), (3, 4), (30, ROWS)):
        assert np.array_equal(matrix.rows(start, stop), stored[start:stop].float().numpy())


def test_shards_are_found_by_the_index(tmp_path: Path, rows: torch.Tensor):
    save_file({"model.embed_tokens.weight": rows}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"lm_head.weight": rows + 1}, tmp_path / "model-00002-of-00002.safetensors")
    places = {"model.embed_tokens.weight": "model-00001-of-00002.safetensors",
              "lm_head.weight": "model-00002-of-00002.safetensors"}  # fmt: skip
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    head = _head(tmp_path)
    assert (head.matrix.name, head.tied) == ("lm_head.weight", False)
    assert np.array_equal(head.matrix.rows(0, ROWS), (rows + 1).numpy())
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    assert _head(tmp_path).tied is None, "the shard of the head alone is enough"
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"'lm_head\.weight' is in model-00002-of-00002\.safetensors.*missing"):
        _head(tmp_path)


def test_rows_saved_in_parts_over_a_series_of_shards_are_joined(tmp_path: Path, rows: torch.Tensor):
    for number, part in enumerate(torch.tensor_split(rows, 3), 1):
        save_file({"lm_head.weight": part.contiguous()}, tmp_path / f"model-{number:05d}-of-00003.safetensors")
    matrix = _head(tmp_path).matrix
    assert matrix.shape == (ROWS, DIM)
    for start, stop in ((0, ROWS), (5, 30), (13, 14)):
        assert np.array_equal(matrix.rows(start, stop), rows[start:stop].numpy())


def test_one_tensor_in_two_files_that_are_no_series_is_refused(tmp_path: Path, rows: torch.Tensor):
    save_file({"lm_head.weight": rows}, tmp_path / "model.safetensors")
    save_file({"lm_head.weight": rows.flip(0)}, tmp_path / "model.fp16.safetensors")
    with pytest.raises(CheckpointError, match=r"is in model\.fp16\.safetensors and model\.safetensors"):
        _head(tmp_path)


def test_copies_of_a_tensor_in_several_shards_are_one(tmp_path: Path, rows: torch.Tensor):
    names = [f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file({"lm_head.weight": rows, f"layer{number}.weight": rows[:2].clone()}, tmp_path / name)
    matrix = _head(tmp_path).matrix
    assert matrix.shape == (ROWS, DIM)
    assert np.array_equal(matrix.rows(0, ROWS), rows.numpy())


def test_tables_of_integers_in_several_shards_do_not_stand_in_the_way(tmp_path: Path, rows: torch.Tensor):
    for number, part in enumerate(torch.tensor_split(rows, 2), 1):
        tables = {"table": torch.full((ROWS, 2), number), "model.embed_tokens.weight": part.contiguous()}
        save_file(tables, tmp_path / f"model-{number:05d}-of-00002.safetensors")
    assert open_checkpoint(tmp_path).describe("table") == ("I64", (2 * ROWS, 2))
    assert _head(tmp_path).matrix.shape == (ROWS, DIM)


def test_files_without_tensors_are_named(tmp_path: Path):
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="contains no tensors"):
        _head(tmp_path)


NAMES = [
    "lm_head.weight", "embed_out.weight", "output.weight", "transformer.output_layer.weight",
    "cls.predictions.decoder.weight", "model.transformer.ff_out.weight", "language_model.lm_head.weight",
    "model.embed_tokens.weight", "transformer.wte.weight", "wte.weight", "gpt_neox.embed_in.weight",
    "transformer.word_embeddings.weight", "model.tok_embeddings.weight", "embeddings.word_embeddings.weight",
    "bert.embeddings.word_embeddings.weight", "model.language_model.embed_tokens.weight",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_names_that_heads_and_embeddings_go_by(tmp_path: Path, rows: torch.Tensor, name: str):
    others = {"model.layers.0.attention.output.weight": rows + 3, "model.norm.weight": rows[0] + 1}
    save_file({name: rows} | others, tmp_path / "model.safetensors")
    assert _head(tmp_path).matrix.name == name


def test_an_unknown_name_can_be_given(tmp_path: Path, rows: torch.Tensor):
    save_file({"codebook.table": rows, "other": rows.clone()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        _head(tmp_path)
    assert "codebook.table" in caught.value.hint
    assert _head(tmp_path, "codebook.table").role == "named"
    with pytest.raises(CheckpointError) as caught:
        _head(tmp_path, "codebook.tabel")
    assert "codebook.table" in caught.value.hint


@pytest.mark.parametrize(
    ("head", "embedding", "config", "tied", "name", "disagrees"),
    [
        (True, "same", {"tie_word_embeddings": True}, True, "lm_head.weight", False),
        (True, "same", {"tie_word_embeddings": False}, True, "lm_head.weight", True),
        (True, "other", {"tie_word_embeddings": True}, False, "lm_head.weight", True),
        (True, "other", {"text_config": {"tie_word_embeddings": False}}, False, "lm_head.weight", False),
        (True, "other", {"text_config": {"tie_word_embeddings": True}}, False, "lm_head.weight", True),
        (False, "same", {"tie_word_embeddings": True}, True, "model.embed_tokens.weight", False),
        (False, "same", {"tie_word_embeddings": False}, True, "model.embed_tokens.weight", True),
        (True, None, {}, None, "lm_head.weight", False),
    ],
)
def test_the_tensors_decide_what_is_tied(
    tmp_path: Path, rows: torch.Tensor, head: bool, embedding: str | None, config: dict, tied: bool | None, name: str,
    disagrees: bool,
):  # fmt: skip
    tensors = {"lm_head.weight": rows} if head else {}
    if embedding:
        tensors["model.embed_tokens.weight"] = rows.clone() if embedding == "same" else rows + 1
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    chosen = _head(tmp_path)
    assert (chosen.tied, chosen.matrix.name, bool(chosen.disagreement)) == (tied, name, disagrees)


def _gguf(path: Path, tensors: dict[str, np.ndarray], kinds: dict[str, gguf.GGMLQuantizationType] | None = None):
    writer = gguf.GGUFWriter(path, "llama")
    for name, data in tensors.items():
        kind = (kinds or {}).get(name)
        if kind is None:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_gguf_rows_are_those_that_its_own_library_gives(tmp_path: Path, rows: torch.Tensor, kind: str):
    kind_of = gguf.GGMLQuantizationType[kind]
    _gguf(tmp_path / "m.gguf", {"output.weight": rows.numpy()}, {"output.weight": kind_of})
    matrix = _head(tmp_path / "m.gguf").matrix
    assert (matrix.dtype, matrix.shape) == (kind, (ROWS, DIM))
    whole = gguf.quants.dequantize(gguf.quants.quantize(rows.numpy(), kind_of), kind_of)
    for start, stop in ((0, ROWS), (7, 8), (20, ROWS)):
        assert np.array_equal(matrix.rows(start, stop), whole[start:stop])


def test_gguf_without_a_head_is_tied_and_its_parts_are_one_model(tmp_path: Path, rows: torch.Tensor):
    _gguf(tmp_path / "m-00001-of-00002.gguf", {"blk.0.ffn.weight": rows.numpy()})
    _gguf(tmp_path / "m-00002-of-00002.gguf", {"token_embd.weight": rows.numpy() + 1})
    for given in (tmp_path, tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"):
        head = _head(given)
        assert (head.matrix.name, head.role) == ("token_embd.weight", "embedding")
        assert np.array_equal(head.matrix.rows(0, ROWS), rows.numpy() + 1)
    (tmp_path / "m-00001-of-00002.gguf").unlink()
    with pytest.raises(CheckpointError, match=r"m-00001-of-00002\.gguf is missing"):
        _head(tmp_path)


def test_a_training_checkpoint_keeps_its_weights_under_a_key(tmp_path: Path, rows: torch.Tensor):
    torch.save({"epoch": 3, "state_dict": {"lm_head.weight": rows}}, tmp_path / "last.ckpt")
    assert np.array_equal(_head(tmp_path).matrix.rows(0, ROWS), rows.numpy())
    torch.save({"lm_head.weight": rows}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert np.array_equal(_head(tmp_path / "old.pt").matrix.rows(0, ROWS), rows.numpy())


class _Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


def _safetensors_bytes(tmp_path: Path, rows: torch.Tensor) -> bytes:
    save_file({"lm_head.weight": rows}, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "whole.safetensors").unlink()
    return content


def _lying(content: bytes, **changes: object) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["lm_head.weight"] |= changes
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + content[8 + size :]


def test_broken_weights_are_named_and_never_read(
    tmp_path: Path, rows: torch.Tensor, capsys: pytest.CaptureFixture[str]
):
    good = _safetensors_bytes(tmp_path, rows)
    torch.save({"lm_head.weight": rows, "evil": _Evil()}, tmp_path / "evil")
    torch.save({"lm_head.weight": rows}, tmp_path / "fine")
    _gguf(tmp_path / "fine_gguf", {"output.weight": rows.numpy()})
    pickled, whole, gguf_bytes = ((tmp_path / name).read_bytes() for name in ("evil", "fine", "fine_gguf"))
    half = ROWS * DIM * 2
    cases = {
        "cut.safetensors": good[:-100],
        "header.safetensors": good[:20],
        "short.safetensors": b"\x00",
        "offsets.safetensors": _lying(good, data_offsets=[0, 10**9]),
        "shape.safetensors": _lying(good, shape=[ROWS * 1000, DIM]),
        "dtype.safetensors": _lying(good, dtype="I16", data_offsets=[0, half]),
        "cube.safetensors": _lying(good, shape=[ROWS, 8, 8]),
        "pickle.bin": pickled,
        "cut.bin": whole[: len(whole) // 2],
        "text.bin": b"not weights at all",
        "cut.gguf": gguf_bytes[:-200],
        "head.gguf": gguf_bytes[:40],
        "text.gguf": b"GGUF and nothing that follows",
    }
    for name, content in cases.items():
        path = tmp_path / "broken" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            _head(path).matrix.rows(0, ROWS)
        assert name in str(caught.value), caught.value
        assert caught.value.hint
    assert "never run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "no weight_map"),
        ('{"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}', "not in the same folder"),
        ('{"weight_map": {"lm_head.weight": "gone.safetensors"}}', "'lm_head.weight' is in gone.safetensors"),
        ('{"weight_map": {"lm_head.weight": "other.safetensors"}}', "has no tensor 'lm_head.weight'"),
    ],
)
def test_an_index_that_leads_nowhere(tmp_path: Path, rows: torch.Tensor, index: str, message: str):
    save_file({"norm.weight": rows}, tmp_path / "other.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        _head(tmp_path)


def test_scales_of_blocks_are_refused_and_those_of_rows_are_not(tmp_path: Path, rows: torch.Tensor):
    stored = rows.to(torch.float8_e4m3fn)
    save_file({"lm_head.weight": stored, "lm_head.weight_scale": torch.ones(ROWS, 1)}, tmp_path / "a.safetensors")
    assert _head(tmp_path / "a.safetensors").matrix.dtype == "F8_E4M3"
    save_file({"lm_head.weight": stored, "lm_head.weight_scale_inv": torch.ones(2, 2)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="scaled in blocks"):
        _head(tmp_path / "b.safetensors")


def test_no_weights_at_all(tmp_path: Path):
    with pytest.raises(InputNotFoundError, match="no weights in"):
        open_checkpoint(tmp_path)
    with pytest.raises(InputNotFoundError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(CostbankError, match="is empty"):
        open_checkpoint(tmp_path / "empty.safetensors")


def test_the_only_tensor_is_chosen(tmp_path: Path, rows: torch.Tensor):
    save_file({"codebook.table": rows}, tmp_path / "model.safetensors")
    assert _head(tmp_path).role == "only"


def test_a_layer_of_another_module_is_no_head(tmp_path: Path, rows: torch.Tensor):
    save_file(
        {"model.embed_tokens.weight": rows, "pooler.output.weight": rows[:3].clone()}, tmp_path / "model.safetensors"
    )
    head = _head(tmp_path)
    assert head.matrix.name == "model.embed_tokens.weight"
    assert not head.guessed


def test_a_head_of_which_only_the_end_is_known_is_a_guess(tmp_path: Path, rows: torch.Tensor):
    save_file({"thinker.lm_head.weight": rows}, tmp_path / "model.safetensors")
    assert _head(tmp_path).guessed


def test_an_embedding_is_no_head_while_parts_are_missing(tmp_path: Path, rows: torch.Tensor):
    save_file({"model.embed_tokens.weight": rows}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        _head(tmp_path)
    assert _head(tmp_path, "model.embed_tokens.weight").role == "named"
    save_file({"lm_head.weight": rows}, tmp_path / "model-00002-of-00002.safetensors")
    assert _head(tmp_path).role == "head"


def test_the_plain_index_goes_before_that_of_another_precision(tmp_path: Path, rows: torch.Tensor):
    for name in ("model", "model.fp16"):
        save_file({"lm_head.weight": rows + len(name)}, tmp_path / f"{name}.safetensors")
        index = {"weight_map": {"lm_head.weight": f"{name}.safetensors"}}
        (tmp_path / f"{name}.safetensors.index.json").write_text(json.dumps(index))
    assert _head(tmp_path).matrix.file.name == "model.safetensors"


def test_odd_tensors_are_refused(tmp_path: Path, rows: torch.Tensor):
    for number, (tensor, message) in enumerate(
        [(rows.to_sparse(), "sparse"), (rows[:, :0].clone(), "has the shape"), (rows[0], "has the shape")]
    ):
        torch.save({"lm_head.weight": tensor}, tmp_path / f"{number}.bin")
        with pytest.raises(CheckpointError, match=message):
            _head(tmp_path / f"{number}.bin")
    (tmp_path / "empty.bin").touch()
    with pytest.raises(InputError, match="empty"):
        open_checkpoint(tmp_path / "empty.bin")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match="is not a file of weights"):
        open_checkpoint(tmp_path / "folder")
