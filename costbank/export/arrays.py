"""NumPy files: all rows, or the matrix of all costs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from costbank.bank import Bank
from costbank.element_types import ELEMENT_TYPES
from costbank.export.base import CellType, ExportJob
from costbank.export.vocab_listing import estimate_listing_bytes, write_listing

__all__ = ["estimate_cost_bytes", "estimate_row_bytes", "write_costs", "write_rows"]

_HEADER_BYTES = 128
_MAX_BAND_ROWS = 1_024


def write_rows(job: ExportJob) -> None:
    """float32 [vocab, dim], row = token id, and a listing of the vocabulary."""
    _write_npy(job.target, (job.bank.size, job.bank.dim), np.dtype("<f4"), (rows for _, rows in job.row_blocks()))
    write_listing(job.companion, job.bank.vocab, range(job.bank.size))


def write_costs(job: ExportJob) -> None:
    """`Bank.cost_matrix` of all tokens, [vocab, vocab], with one band of rows in memory at a time."""
    size, dtype = job.bank.size, ELEMENT_TYPES[job.dtype].dtype
    band_rows = max(1, min(_MAX_BAND_ROWS, job.sizes.cost_elements // size))
    with job.progress.step("write costs", size * size, "costs") as step:

        def bands() -> Iterator[np.ndarray]:
            for start in range(0, size, band_rows):
                ids = np.arange(start, min(start + band_rows, size))
                band = np.empty((len(ids), size), dtype)
                for column in range(0, size, job.sizes.cost_columns):
                    columns = np.arange(column, min(column + job.sizes.cost_columns, size))
                    band[:, columns[0] : columns[-1] + 1] = job.bank.cost_matrix(ids, columns)
                    step.advance(len(ids) * len(columns))
                yield band

        _write_npy(job.target, (size, size), dtype, bands())


def estimate_row_bytes(bank: Bank, dtype: CellType) -> int:
    return _HEADER_BYTES + bank.size * bank.dim * 4 + estimate_listing_bytes(bank.vocab)


def estimate_cost_bytes(bank: Bank, dtype: CellType) -> int:
    return _HEADER_BYTES + bank.size * bank.size * ELEMENT_TYPES[dtype].dtype.itemsize


def _write_npy(path: Path, shape: tuple[int, int], dtype: np.dtype, blocks: Iterator[np.ndarray]) -> None:
    with path.open("xb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data.cast("B"))
