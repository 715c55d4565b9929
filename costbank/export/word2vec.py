"""The text format and the binary format of the original word2vec tool.

The words are those of `costbank.export.words`. Tokens without a vector are omitted, because a row of length 0 makes
cosine similarities NaN. The listing next to the file has the id of each word, in the order of the rows.
"""

import numpy as np

from costbank.bank import Bank
from costbank.export.base import CellType, ExportJob
from costbank.export.vocab_listing import estimate_listing_bytes, write_listing
from costbank.export.words import token_words

__all__ = ["estimate_binary_bytes", "estimate_text_bytes", "write_binary", "write_text"]

DIGITS_PER_VALUE = 13
"""Upper estimate of the characters of a value of a unit row: a space, and a float32 with nine significant digits."""


def write_text(job: ExportJob) -> None:
    """Values have nine significant digits, which identify a float32."""
    ids, words = np.flatnonzero(job.bank.usable), token_words(job.bank.vocab)
    line = "%s" + " %.9g" * job.bank.dim + "\n"
    with job.target.open("x", encoding="utf-8", newline="\n") as file:
        file.write(f"{len(ids)} {job.bank.dim}\n")
        for block_ids, rows in job.row_blocks(ids):
            for token_id, row in zip(block_ids.tolist(), rows, strict=True):
                file.write(line % (words[token_id], *row.tolist()))
    write_listing(job.companion, job.bank.vocab, ids.tolist())


def write_binary(job: ExportJob) -> None:
    ids, words = np.flatnonzero(job.bank.usable), token_words(job.bank.vocab)
    with job.target.open("xb") as file:
        file.write(f"{len(ids)} {job.bank.dim}\n".encode())
        for block_ids, rows in job.row_blocks(ids):
            for token_id, row in zip(block_ids.tolist(), rows, strict=True):
                file.write(b"%s %s\n" % (words[token_id].encode(), row.astype("<f4", copy=False).tobytes()))
    write_listing(job.companion, job.bank.vocab, ids.tolist())


def estimate_text_bytes(bank: Bank, dtype: CellType) -> int:
    return bank.size * (bank.dim * DIGITS_PER_VALUE + 8) + len(bank.vocab.data) + estimate_listing_bytes(bank.vocab)


def estimate_binary_bytes(bank: Bank, dtype: CellType) -> int:
    return bank.size * (bank.dim * 4 + 8) + len(bank.vocab.data) + estimate_listing_bytes(bank.vocab)
