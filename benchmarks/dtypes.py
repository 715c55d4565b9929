"""The share of nearest neighbors that a head keeps in each smaller element type of a checkpoint.

The head has 64 strong directions, and noise in all 1,024, so its neighbors are as hard to separate as real ones.
"""

import tempfile
from pathlib import Path

import gguf
import numpy as np

import costbank
from benchmarks.record import record
from costbank.bank import Bank
from costbank.config import load_config
from costbank.tensorfile import TensorSpec, write_tensors

__all__ = ["run"]

_ROWS, _DIM, _K = 20_000, 1_024, 10
_SAFETENSORS = ("F16", "BF16", "F8_E4M3", "F8_E5M2")
_QUANTIZED = ("Q8_0", "Q5_0", "Q4_0")


def run() -> None:
    import torch
    from safetensors.torch import save_file

    random = np.random.default_rng(0)
    head = random.standard_normal((_ROWS, 64), np.float32) @ random.standard_normal((64, _DIM), np.float32) / 8
    head += random.standard_normal((_ROWS, _DIM), np.float32)
    types = {"F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.txt").write_text("\n".join(f"token{i}" for i in range(_ROWS)) + "\n")
        write_tensors(folder / "F32.safetensors", {"lm_head.weight": (TensorSpec("F32", head.shape), [head])})
        exact = _build(folder, "F32.safetensors").neighbors.ids
        for dtype in _SAFETENSORS:
            save_file({"lm_head.weight": torch.from_numpy(head).to(types[dtype])}, folder / f"{dtype}.safetensors")
            _compare(dtype, exact, _build(folder, f"{dtype}.safetensors").neighbors.ids)
        for dtype in _QUANTIZED:
            _write_gguf(folder / f"{dtype}.gguf", head, gguf.GGMLQuantizationType[dtype])
            _compare(dtype, exact, _build(folder, f"{dtype}.gguf").neighbors.ids)


def _compare(dtype: str, exact: np.ndarray, ids: np.ndarray) -> None:
    shared = np.mean([len(set(a) & set(b)) / _K for a, b in zip(exact.tolist(), ids.tolist(), strict=True)])
    note = f"{_ROWS:,} x {_DIM:,}, against the same head in F32"
    record("dtypes", f"overlap@{_K} of {dtype}", "share", [float(shared)], "", ("numpy", "gguf"), note)


def _build(folder: Path, model: str) -> Bank:
    settings = {"source": "lm-head", "lm_head.model": folder / model, "tokenizer": folder / "vocab.txt",
                "name": "head", "store": folder / "store", "neighbors.k": _K}  # fmt: skip
    return costbank.build(load_config(settings))


def _write_gguf(path: Path, head: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("output.weight", gguf.quants.quantize(head, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
