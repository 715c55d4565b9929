"""The formats of the original word2vec tool, as text and binary: words that have a vector, and their rows.

The words are those of `costbank.export.words`. Rows without a vector are left out, because a length of zero makes
similarities NaN. The file next to it names the id of each word, in the order of the rows.
"""

import numpy as np

from costbank.bank import Bank
from costbank.export.base import CellType, ExportJob
from costbank.export.listing import listing_bytes, write_listing
from costbank.export.words import words

__all__ = ["binary_size", "text_size", "write_binary", "write_text"]

DIGITS_PER_VALUE = 13
"""Most characters of a float32 with nine digits, and the space before it, for values of unit rows."""


def write_text(job: ExportJob) -> None:
    """Each value has nine digits, from which the same float32 is read back."""
    ids, names = np.flatnonzero(job.bank.usable), words(job.bank.vocab)
    line = "%s" + " %.9g" * job.bank.dim + "\n"
    with job.target.open("x", encoding="utf-8", newline="\n") as file:
        file.write(f"{len(ids)} {job.bank.dim}\n")
        for part, rows in job.row_blocks(ids):
            for token_id, row in zip(part.tolist(), rows, strict=True):
                file.write(line % (names[token_id], *row.tolist()))
    write_listing(job.companion, job.bank.vocab, ids.tolist())


def write_binary(job: ExportJob) -> None:
    ids, names = np.flatnonzero(job.bank.usable), words(job.bank.vocab)
    with job.target.open("xb") as file:
        file.write(f"{len(ids)} {job.bank.dim}\n".encode())
        for part, rows in job.row_blocks(ids):
            for token_id, row in zip(part.tolist(), rows, strict=True):
                file.write(b"%s %s\n" % (names[token_id].encode(), row.astype("<f4", copy=False).tobytes()))
    write_listing(job.companion, job.bank.vocab, ids.tolist())


def text_size(bank: Bank, dtype: CellType) -> int:
    return bank.size * (bank.dim * DIGITS_PER_VALUE + 8) + len(bank.vocab.data) + listing_bytes(bank.vocab)


def binary_size(bank: Bank, dtype: CellType) -> int:
    return bank.size * (bank.dim * 4 + 8) + len(bank.vocab.data) + listing_bytes(bank.vocab)
