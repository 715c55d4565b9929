"""A bank for processes that run for months: a change to its files cannot crash the process.

The tokens, the neighbor table and the map are copied into memory and checked against their sha256 when the bank is
opened, and the index when it is first needed. Rows are read from a file that stays open. What an id covers never
changes, so the copies stay correct even if the directory is overwritten, truncated or removed.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from costbank.bank.layout import INDEX, MAP, NEIGHBORS, TOKENS, VECTORS
from costbank.bank.manifest import REPAIR, load_manifest
from costbank.bank.reader import Bank, Neighbor
from costbank.errors import CorruptBankError
from costbank.neighbors import load_index, nearest_in_index, nearest_rows
from costbank.tensorread import FileTensor, LoadedTensor, load_tensors, open_tensors
from costbank.vocab_index import IndexedVocab

__all__ = ["LoadedBank", "NearestTokens"]

_SCAN_BYTES = 8 << 20


@dataclass(frozen=True)
class NearestTokens:
    """Neighbors by ascending cost, and whether they are certain to be the nearest."""

    neighbors: list[Neighbor]
    exact: bool


class LoadedBank(Bank):
    """A `Bank` that maps no file; see the docstring of the module.

    Raises:
        CorruptBankError: a file is missing or being written, or its size or sha256 differs from the manifest's.
    """

    def __init__(self, path: Path) -> None:
        self._index_lock = Lock()
        self._loaded_index: Any = None
        super().__init__(path)
        self._name = super().name
        self._xy = self._load_map()
        vocab = self.vocab
        self.vocab: IndexedVocab = IndexedVocab(vocab.data, vocab.offsets, vocab.status, vocab.counts)
        self.vocab.prepare()

    @property
    def name(self) -> str:
        """The bank's name in its store when it was loaded."""
        return self._name

    @property
    def resident_bytes(self) -> int:
        """Bytes of the bank's files in memory."""
        files = self.manifest.files
        names = [TOKENS, NEIGHBORS]
        if self._loaded_index is not None:
            names.append(INDEX)
        if self._xy is not None:
            names.append(MAP)
        return sum(files[name].size for name in names)

    @property
    def index_bytes(self) -> int:
        """Bytes that loading the index would add to `resident_bytes`; 0 if there is none, or it is loaded."""
        return 0 if self._loaded_index is not None or not self._has_index else self.manifest.files[INDEX].size

    @cached_property
    def usable(self) -> Bool[np.ndarray, "vocab"]:
        """Which tokens have a vector: those with neighbors, if the bank has a table, else those with a nonzero row."""
        if self.neighbors.k:
            return self.neighbors.ids[:, 0] >= 0
        blocks = range(0, self.size, 4_096)
        return np.concatenate([self.vectors(slice(start, start + 4_096)).any(axis=1) for start in blocks])

    def nearest_in_table(self, token: int, k: int) -> NearestTokens | None:
        """`nearest` from the table in memory; None if the table has fewer than k columns.

        Raises:
            TokenNotFoundError, UsageError: see `nearest`.
        """
        self._check_k(token, k)
        ids, costs = self.neighbors.ids[token, :k], self.neighbors.costs[token, :k]
        if k > self.neighbors.k and (ids >= 0).all():
            return None
        return NearestTokens(self._neighbors_of(ids, costs), self.manifest.neighbors.exact)

    def search_vectors(
        self, vectors: Float32[np.ndarray, "queries dim"], k: int, with_index: bool = True
    ) -> list[NearestTokens]:
        """`search`; with `with_index` false, or without FAISS, it passes over all rows.

        Raises:
            UsageError, ShapeError, CorruptBankError: see `search`.
            ChangedFileError: a file was written to since the bank was opened.
        """
        indexed = with_index and self._has_index
        exact = not indexed or self.manifest.index.kind == "flat"
        return [NearestTokens(neighbors, exact) for neighbors in self._search(vectors, k, indexed)]

    def search_nearest(self, token: int, k: int, with_index: bool = True) -> NearestTokens:
        """`nearest` for any k, without the table.

        Searches the index, which is loaded first. Without an index, all rows are searched in blocks of 8 MB. A `flat`
        index and a search of all rows are exact. Candidates from an `sq8` index are ranked by exact costs, but a
        neighbor may be missing.

        Args:
            token: an id.
            k: how many neighbors.
            with_index: whether the index may be loaded and searched.

        Raises:
            TokenNotFoundError, UsageError: see `nearest`.
            CorruptBankError: the sha256 of the index differs from the manifest's.
            ChangedFileError: a file was written to since the bank was opened.
        """
        self._check_k(token, k)
        if not self.usable[token]:
            return NearestTokens([], exact=True)
        if not (with_index and self._has_index):
            ids, costs = nearest_rows(token, self.vectors, self.usable, k, _SCAN_BYTES)
            return NearestTokens(self._neighbors_of(ids, costs), exact=True)
        index, flat = self._index, self.manifest.index.kind == "flat"

        def stored_rows(ids: Int64[np.ndarray, "rows"]) -> Float32[np.ndarray, "rows dim"]:
            return index.reconstruct_batch(ids)

        ids, costs = nearest_in_index(index, token, stored_rows if flat else self.vectors, k, flat)
        return NearestTokens(self._neighbors_of(ids, costs), exact=flat)

    def map(self) -> Float32[np.ndarray, "vocab 2"]:
        """The place of every token on the bank's map, from memory; NaN for tokens without a vector.

        Raises:
            UsageError: the bank had no map when it was loaded.
        """
        return super().map() if self._xy is None else self._xy

    def _load_map(self) -> Float32[np.ndarray, "vocab 2"] | None:
        """The map, checked. If another process replaces it between two reads, it is read again."""
        while self.has_map:
            listed = self.manifest.files[MAP]
            try:
                return super().map()
            except CorruptBankError:
                self.manifest = load_manifest(self.path)
                if self.manifest.files.get(MAP) == listed:
                    raise
        return None

    @property
    def _has_index(self) -> bool:
        return self.manifest.index.kind != "none" and find_spec("faiss") is not None

    @cached_property
    def _index(self) -> Any:
        with self._index_lock:  # two threads may run a cached property at the same time
            if self._loaded_index is None:
                self._loaded_index = load_index(np.frombuffer(self._checked(INDEX), np.uint8))
            return self._loaded_index

    def _open_tensors(self, name: str) -> dict[str, LoadedTensor] | dict[str, FileTensor]:
        if name == VECTORS:
            return open_tensors(self.path / name)
        return load_tensors(self._checked(name), self.path / name)

    def _checked(self, name: str) -> bytes:
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise CorruptBankError(f"{self.path / name} cannot be read: {error.strerror}", REPAIR) from None
        if hashlib.sha256(data).hexdigest() != self.manifest.files[name].sha256:
            raise CorruptBankError(f"the sha256 of {self.path / name} differs from the manifest's", REPAIR)
        return data
