"""Folders that model2vec and sentence-transformers open: the rows, a tokenizer.json and configuration files.

Both libraries embed a text as the mean of the rows of its ids, without normalizing it. Only model2vec omits the unknown
token from the mean.
"""

import json
from typing import Any

import numpy as np

from costbank.bank import Bank
from costbank.export.base import CellType, ExportJob
from costbank.tensorfile import TensorSpec, write_tensors

__all__ = ["estimate_model_bytes", "write_model2vec", "write_sentence_transformers"]

_STATIC_EMBEDDING = "sentence_transformers.models.StaticEmbedding"
_SMALL_FILES_BYTES = 4_000


def write_model2vec(job: ExportJob) -> None:
    """`config.json`, `modules.json`, `model.safetensors`, `tokenizer.json`, `README.md`.

    If the tokenizer has fewer ids than the bank has rows, a tensor `mapping` maps each id to its own row. Without it,
    model2vec requires as many rows as ids.
    """
    size, dim = job.bank.size, job.bank.dim
    mapping = {"mapping": (TensorSpec("I64", (size,)), [np.arange(size)])} if job.tokenizer.tokens != size else {}
    config = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "hidden_dim": dim,
        "max_length": None,  # else model2vec truncates texts to 512 tokens
        "normalize": False,
        "embedding_dtype": "float32",
    } | ({"vocabulary_quantization": size} if mapping else {})
    _write(job, "embeddings", mapping, {"config.json": config}, "model2vec", "StaticModel.from_pretrained(folder)")


def write_sentence_transformers(job: ExportJob) -> None:
    """`config_sentence_transformers.json`, `modules.json`, `model.safetensors`, `tokenizer.json`, `README.md`."""
    config = {
        "model_type": "SentenceTransformer",
        "__version__": {},
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    configs = {"config_sentence_transformers.json": config}
    _write(job, "embedding.weight", {}, configs, "sentence-transformers", "SentenceTransformer(folder)")


def estimate_model_bytes(bank: Bank, dtype: CellType) -> int:
    """The tokenizer.json is not included: its size is known."""
    return bank.size * (bank.dim * 4 + 8) + _SMALL_FILES_BYTES


def _write(
    job: ExportJob, tensor: str, other_tensors: dict[str, Any], configs: dict[str, Any], library: str, opened_by: str
) -> None:
    rows = TensorSpec("F32", (job.bank.size, job.bank.dim))
    blocks = (block for _, block in job.row_blocks())
    write_tensors(job.target / "model.safetensors", other_tensors | {tensor: (rows, blocks)})
    modules = [{"idx": 0, "name": "0", "path": "", "type": _STATIC_EMBEDDING}]
    for name, content in (configs | {"modules.json": modules}).items():
        (job.target / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    (job.target / "tokenizer.json").write_bytes(job.tokenizer.content)
    (job.target / "README.md").write_text(_card(job, library, opened_by), "utf-8")


def _card(job: ExportJob, library: str, opened_by: str) -> str:
    bank, tokenizer = job.bank, job.bank.manifest.tokenizer
    return (
        f"---\nlibrary_name: {library}\n---\n\n# {job.title}\n\n"
        f"The frozen token embeddings of this costbank bank: {bank.size:,} rows of {bank.dim} values, "
        f"each a unit vector or zero, for the ids of `{tokenizer.file}`.\n\n"
        f"`{opened_by}` opens this folder. The embedding of a text is the mean of the rows of its ids.\n"
    )
