"""Candidates for nearest neighbors from coarser forms of the rows, which are much faster to search than the rows."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from costbank.errors import require
from costbank.neighbors.table import RowReader

__all__ = ["Int8Candidates", "Proposer", "ReducedCandidates"]

_BLOCK_BYTES = 64 << 20
_REDUCED_DIM = 512
_MULTIPLE = 32  # on CUDA, torch._int_mm takes only matrices whose sizes are multiples of this
_LEAST_QUERIES = 32


class Proposer(Protocol):
    """Proposes tokens that may be among the nearest."""

    query_rows: int
    """The fastest number of queries per call."""

    def propose(self, positions: Int64[np.ndarray, "queries"], count: int) -> Int64[np.ndarray, "queries count"]:
        """For each query, `count` candidates in any order; queries and candidates are positions in `row_ids`."""
        ...


class Int8Candidates:
    """All dimensions in 8 bits, with one scale per row; torch multiplies them as integers, on CUDA if available.

    Integer products are the same on every machine.
    """

    def __init__(self, read_rows: RowReader, row_ids: Int64[np.ndarray, "usable"]) -> None:
        torch = self._torch = require("torch", "train")
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.query_rows = 128 if self._device == "cpu" else 4_096
        dim = read_rows(row_ids[:1]).shape[1]
        shape = (_rounded_up(len(row_ids)), _rounded_up(dim))
        codes = np.zeros(shape, np.int8)
        self._scales = torch.zeros(shape[0])
        for start, stop in _ranges(len(row_ids), dim * 4):
            block = read_rows(row_ids[start:stop])
            largest = np.maximum(np.abs(block).max(axis=1, keepdims=True), np.float32(1e-30))
            codes[start:stop, :dim] = np.rint(block * (np.float32(127) / largest))
            self._scales[start:stop] = torch.from_numpy(largest[:, 0])
        self._count = len(row_ids)
        self._codes = torch.from_numpy(codes).to(self._device)
        self._scales = self._scales.to(self._device)

    def propose(self, positions: Int64[np.ndarray, "queries"], count: int) -> Int64[np.ndarray, "queries count"]:
        torch = self._torch
        queries = self._codes[torch.from_numpy(positions).to(self._device)]
        if len(queries) < _LEAST_QUERIES:
            queries = torch.nn.functional.pad(queries, (0, 0, 0, _LEAST_QUERIES - len(queries)))
        scores = torch._int_mm(queries, self._codes.T)[: len(positions), : self._count].float()
        scores *= self._scales[: self._count]
        return scores.topk(count, dim=1, sorted=False).indices.cpu().numpy()


class ReducedCandidates:
    """The rows projected onto their leading principal directions, searched by FAISS."""

    query_rows = 4_096

    def __init__(self, read_rows: RowReader, row_ids: Int64[np.ndarray, "usable"]) -> None:
        dim = read_rows(row_ids[:1]).shape[1]
        moment = np.zeros((dim, dim))
        for start, stop in _ranges(len(row_ids), dim * 4):
            block = read_rows(row_ids[start:stop])
            moment += block.T @ block
        directions = np.linalg.eigh(moment)[1][:, ::-1][:, :_REDUCED_DIM].astype(np.float32)
        self._rows = np.concatenate(
            [read_rows(row_ids[start:stop]) @ directions for start, stop in _ranges(len(row_ids), dim * 4)]
        )

    def propose(self, positions: Int64[np.ndarray, "queries"], count: int) -> Int64[np.ndarray, "queries count"]:
        faiss = require("faiss", "build")
        return faiss.knn(self._rows[positions], self._rows, count, metric=faiss.METRIC_INNER_PRODUCT)[1]


def _ranges(count: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each block of rows."""
    step = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, count, step):
        yield start, min(start + step, count)


def _rounded_up(size: int) -> int:
    return -(-size // _MULTIPLE) * _MULTIPLE
