"""TensorBoard's Embedding Projector: tab-separated vectors and metadata, and a configuration with the names of both.

Tokens without a vector are omitted, because the projector compares vectors by cosine. `tensorboard --logdir FOLDER`
opens the folder.
"""

import json

import numpy as np

from costbank.bank import Bank
from costbank.export.base import CellType, ExportJob
from costbank.export.word2vec import DIGITS_PER_VALUE

__all__ = ["estimate_projector_bytes", "write_projector"]

_VECTORS, _METADATA, _CONFIG = "vectors.tsv", "metadata.tsv", "projector_config.pbtxt"
_COLUMNS = ("token", "id", "status", "count", "hex")


def write_projector(job: ExportJob) -> None:
    vocab, ids = job.bank.vocab, np.flatnonzero(job.bank.usable)
    line = "\t".join(["%.9g"] * job.bank.dim) + "\n"
    with (job.target / _VECTORS).open("x", encoding="ascii", newline="\n") as file:
        for _, rows in job.row_blocks(ids):
            file.writelines(line % tuple(row.tolist()) for row in rows)
    with (job.target / _METADATA).open("x", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(_COLUMNS) + "\n")
        for token_id in ids.tolist():
            count = int(vocab.counts[token_id])
            # `display` escapes every character that is not printable, so a cell has no tab or line feed.
            cells = (vocab.display(token_id), token_id, vocab.status_of(token_id).name.lower(),
                     "" if count < 0 else count, vocab.token(token_id).hex())  # fmt: skip
            file.write("\t".join(map(str, cells)) + "\n")
    config = (
        "embeddings {\n"
        f"  tensor_name: {json.dumps(job.title)}\n"
        f"  tensor_shape: {len(ids)}\n  tensor_shape: {job.bank.dim}\n"
        f'  tensor_path: "{_VECTORS}"\n  metadata_path: "{_METADATA}"\n'
        "}\n"
    )
    (job.target / _CONFIG).write_text(config, "utf-8")


def estimate_projector_bytes(bank: Bank, dtype: CellType) -> int:
    return bank.size * (bank.dim * DIGITS_PER_VALUE + 32) + 6 * len(bank.vocab.data) + 1_000
