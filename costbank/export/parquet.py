"""A Parquet file with a row for each token id, in order.

The column `neighbors` has the form that Embedding Atlas reads: `ids` are row numbers, which are token ids here, and
`distances` are costs, ascending. A token is not its own neighbor, and a token without a vector has no neighbors.
`embedding-atlas FILE --text text --vector vector --neighbors neighbors` opens the file.
"""

from typing import Any

import numpy as np

from costbank.bank import Bank
from costbank.errors import require
from costbank.export.base import CellType, ExportJob

__all__ = ["estimate_parquet_bytes", "write_parquet"]


def write_parquet(job: ExportJob) -> None:
    """Write a row group for each block of rows.

    The columns are id int32, text string, bytes binary, status string, count int64 (null if unknown),
    vector fixed_size_list<float32>[dim] and neighbors struct<ids: list<int32>, distances: list<float32>>.
    """
    arrow, parquet = require("pyarrow", "export"), require("pyarrow.parquet", "export")
    neighbors = arrow.struct([("ids", arrow.list_(arrow.int32())), ("distances", arrow.list_(arrow.float32()))])
    schema = arrow.schema(
        [
            arrow.field("id", arrow.int32(), nullable=False),
            arrow.field("text", arrow.string(), nullable=False),
            arrow.field("bytes", arrow.binary(), nullable=False),
            arrow.field("status", arrow.string(), nullable=False),
            arrow.field("count", arrow.int64()),
            arrow.field("vector", arrow.list_(arrow.float32(), job.bank.dim), nullable=False),
            arrow.field("neighbors", neighbors, nullable=False),
        ],
        metadata={"costbank.bank": job.title},
    )
    vocab = job.bank.vocab
    with job.target.open("xb") as file, parquet.ParquetWriter(file, schema) as writer:
        for ids, rows in job.row_blocks():
            counts = vocab.counts[ids]
            columns = [
                arrow.array(ids.astype(np.int32)),
                arrow.array([vocab.display(i) for i in ids.tolist()], arrow.string()),
                arrow.array([vocab.token(i) for i in ids.tolist()], arrow.binary()),
                arrow.array([vocab.status_of(i).name.lower() for i in ids.tolist()], arrow.string()),
                arrow.array(counts.astype(np.int64), mask=counts < 0),
                arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), job.bank.dim),
                _neighbors(arrow, job.bank, slice(int(ids[0]), int(ids[-1]) + 1)),
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def estimate_parquet_bytes(bank: Bank, dtype: CellType) -> int:
    return bank.size * (bank.dim * 4 + bank.neighbors.k * 8 + 64) + 4 * len(bank.vocab.data)


def _neighbors(arrow: Any, bank: Bank, rows: slice) -> Any:
    ids, costs = bank.neighbors.ids[rows], bank.neighbors.costs[rows]
    valid = ids >= 0
    ends = np.concatenate([[0], np.cumsum(valid.sum(axis=1))]).astype(np.int32)
    lists = [arrow.ListArray.from_arrays(ends, arrow.array(values[valid])) for values in (ids, costs)]
    return arrow.StructArray.from_arrays(lists, ["ids", "distances"])
