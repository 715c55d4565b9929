"""Read a bank by memory map, without writing anything."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

import numpy as np
from jaxtyping import Bool, Float32, Integer

from costbank.bank.layout import INDEX, MAP, NEIGHBORS, ROWS, TOKENS, VECTORS
from costbank.bank.manifest import REPAIR, Manifest, check_sizes, load_manifest
from costbank.bank.matrix import Missing, hand_over, matrix_rows
from costbank.bank.store import Store
from costbank.cost import pairwise_costs, shortest_float
from costbank.errors import BankNotFoundError, CorruptBankError, ShapeError, UsageError
from costbank.neighbors import NeighborTable, load_index, nearest_rows, nearest_to, search_index
from costbank.tensorfile import TensorSpec, map_tensors
from costbank.transforms import normalize
from costbank.vocab import Vocab

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Bank", "Neighbor", "RawRows", "open_bank"]

_BLOCK_BYTES = 32 << 20
_MOST_REPLACEMENTS = 3


@dataclass(frozen=True)
class Neighbor:
    """A token and its cost. `text` is for people to read; `cost` has as few digits as its float32 value needs."""

    id: int
    text: str
    cost: float


@dataclass(frozen=True)
class RawRows:
    """Measurements of the source's rows, before any transform.

    Attributes:
        norms: Euclidean lengths; 0 for a row without a direction.
        to_unused: cosines to the mean of the rows of ids that no text uses; NaN where there are no such rows.
    """

    norms: Float32[np.ndarray, "vocab"]
    to_unused: Float32[np.ndarray, "vocab"]


class Bank:
    """A frozen cost embedding for every id of one tokenizer. `open_bank` opens one.

    Attributes:
        path: the bank's directory.
        manifest: the content of its manifest.json.
        vocab: its tokens, mapped.
        neighbors: the table of nearest tokens, mapped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest = load_manifest(path)
        check_sizes(path, self.manifest)
        shape = self.manifest.vectors
        tokens = self._tensors(
            TOKENS,
            {
                "bytes": ("U8", (None,)),
                "offsets": ("I64", (shape.vocab + 1,)),
                "status": ("U8", (shape.vocab,)),
                "counts": ("I64", (shape.vocab,)),
            },
        )
        self.vocab = Vocab(*(tokens[name].data for name in ("bytes", "offsets", "status", "counts")))
        self._vectors = self._tensors(VECTORS, {"vectors": (shape.dtype, (shape.vocab, shape.dim))})["vectors"]
        table = (shape.vocab, self.manifest.neighbors.k)
        columns = self._tensors(NEIGHBORS, {"ids": ("I32", table), "costs": ("F32", table)})
        self.neighbors = NeighborTable(columns["ids"].data, columns["costs"].data)

    def __repr__(self) -> str:
        return f"<Bank {self.name}@{self.id}: {self.size:,} tokens × {self.dim:,}>"

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def name(self) -> str:
        """The bank's name in its store: that of the parent directory."""
        return self.path.resolve().parent.name

    @property
    def size(self) -> int:
        """The number of token ids, which is the number of rows."""
        return self.manifest.vectors.vocab

    @property
    def dim(self) -> int:
        return self.manifest.vectors.dim

    def vectors(self, ids: Integer[np.ndarray, "rows"] | slice = slice(None)) -> Float32[np.ndarray, "rows dim"]:
        """The rows of these ids, by default all rows, as float32; F32 slices are read-only views of the file."""
        return self._vectors.float32(ids)

    @overload
    def matrix(
        self, kind: Literal["numpy", "dlpack"] = ..., *, vocab_size: int | None = ...,
        order: Integer[np.ndarray, "width"] | None = ..., missing: Missing = ...,
    ) -> Float32[np.ndarray, "width columns"]: ...  # fmt: skip
    @overload
    def matrix(
        self, kind: Literal["torch"], *, vocab_size: int | None = ...,
        order: Integer[np.ndarray, "width"] | None = ..., missing: Missing = ...,
    ) -> "Tensor": ...  # fmt: skip
    def matrix(
        self, kind: str = "numpy", *, vocab_size: int | None = None, order: np.ndarray | None = None,
        missing: str = "zero",
    ) -> Any:  # fmt: skip
        """All rows as a new, writable float32 array [width, dim] on the CPU, for a loss of another library.

        Args:
            kind: `numpy`; `torch`, a tensor; or `dlpack`, an object for functions such as `jax.numpy.from_dlpack`.
            vocab_size: the width of the logits, by default the bank's. Ids beyond the bank's (the padding of a model's
                head) get a row without a vector. A smaller width drops the bank's last rows.
            order: for logits in another order: the bank's id for each logit, −1 for a logit without a token.
            missing: the row of a token without a vector. `zero`: all zero, so that its cost to every other token is 1.
                `own-axis`: the array has one more column, which is 1 in these rows and 0 in all others. Every row then
                has length 1, as required by code that divides by it (the published EMO code returns NaN otherwise).
                The cost of such a token to those with a vector is still 1, but to each other it is 0.

        Raises:
            UsageError: `kind` or `missing` is unknown, or both `vocab_size` and `order` are set.
            ShapeError: `vocab_size` is not positive, or `order` is not a vector of integers.
            TokenNotFoundError: `order` has an id that the bank does not have.
            MissingExtraError: `kind` is `torch`, and PyTorch is not installed.
        """
        return hand_over(matrix_rows(self.vectors, (self.size, self.dim), vocab_size, order, missing), kind)

    def release(self) -> None:
        """Release the pages of rows that were read, so that a pass over gigabytes does not count as memory in use."""
        self._vectors.release()

    @cached_property
    def usable(self) -> Bool[np.ndarray, "vocab"]:
        """Which tokens have a vector."""
        return np.concatenate(
            [self._vectors.data[start : start + 4_096].any(axis=1) for start in range(0, self.size, 4_096)]
        )

    def has_vector(self, token_id: int) -> bool:
        row = self.vocab.check(token_id)
        return bool(self.vectors(slice(row, row + 1)).any())

    def cost(self, token: str | SupportsIndex, target: str | SupportsIndex) -> float:
        """The cost of predicting `token` where `target` is right; it is symmetric.

        Args:
            token, target: ids, or texts as `Vocab.match` takes them: `king`, `piece:king`, `id:123`, `hex:e4bda0`.

        Raises:
            TokenNotFoundError: no token matches the text, or the id is outside the vocabulary.
        """
        ids = np.array([self.vocab.find(token), self.vocab.find(target)])
        return shortest_float(self.cost_matrix(ids[:1], ids[1:])[0, 0])

    def cost_matrix(
        self,
        rows: Integer[np.ndarray, "rows"] | Sequence[int],
        columns: Integer[np.ndarray, "columns"] | Sequence[int],
    ) -> Float32[np.ndarray, "rows columns"]:
        """Costs of every row token to every column token, both given by their ids.

        Raises:
            TokenNotFoundError: an id is outside the vocabulary.
        """
        rows, columns = (np.asarray(ids) if len(ids) else np.zeros(0, np.int64) for ids in (rows, columns))
        for ids in (rows, columns):
            if len(ids):
                self.vocab.check(int(ids.min()))
                self.vocab.check(int(ids.max()))
        step = max(1, _BLOCK_BYTES // (8 * self.dim))
        if len(columns) <= step:
            return pairwise_costs(rows, columns, self.vectors(rows), self.vectors(columns))
        costs, row_vectors = np.empty((len(rows), len(columns)), np.float32), self.vectors(rows)
        for start in range(0, len(columns), step):
            block = columns[start : start + step]
            costs[:, start : start + step] = pairwise_costs(rows, block, row_vectors, self.vectors(block))
        return costs

    def nearest(self, token: str | SupportsIndex, k: int = 10) -> list[Neighbor]:
        """The k other tokens of least cost, ascending; an empty list for a token without a vector.

        They come from the neighbor table if it has k columns; otherwise they are computed over all rows.

        Args:
            token: an id, or a text as `Vocab.match` takes it: `king`, `piece:king`, `id:123`, `hex:e4bda0`.
            k: how many neighbors.

        Raises:
            TokenNotFoundError: no token matches the text, or the id is outside the vocabulary.
            UsageError: k is not between 1 and the number of other tokens.
        """
        token_id = self.vocab.find(token)
        self._check_k(token_id, k)
        if not self.has_vector(token_id):
            return []
        ids, costs = self.neighbors.ids[token_id, :k], self.neighbors.costs[token_id, :k]
        if k > self.neighbors.k and (ids >= 0).all():
            ids, costs = nearest_rows(token_id, self.vectors, self.usable, k)
        return self._neighbors_of(ids, costs)

    def _check_k(self, token_id: int, k: int) -> None:
        self.vocab.check(token_id)
        if not 1 <= k < self.size:
            raise UsageError(
                f"k is {k}, but this bank has {self.size - 1:,} other tokens", f"give a k from 1 to {self.size - 1:,}"
            )

    def _neighbors_of(
        self, ids: Integer[np.ndarray, "neighbors"], costs: Float32[np.ndarray, "neighbors"]
    ) -> list[Neighbor]:
        """A row of a table as a list, without its padding."""
        return [
            Neighbor(int(i), self.vocab.display(int(i)), shortest_float(cost))
            for i, cost in zip(ids, costs, strict=True)
            if i >= 0
        ]

    def search(
        self, vectors: Float32[np.ndarray, "queries dim"] | Sequence[Sequence[float]], k: int = 10
    ) -> list[list[Neighbor]]:
        """The k tokens of least cost to each vector. The vectors are normalized first.

        The FAISS index proposes candidates, more than k if it stores rows in fewer bits, and exact costs rank them.
        Without an index, all rows are searched.

        Raises:
            UsageError: k is below 1.
            ShapeError: the vectors do not have the bank's dim.
            CorruptBankError: the sha256 of index.faiss differs from the manifest's; FAISS has not read any of it.
            BankNotFoundError: the bank was removed after it was opened.
            MissingExtraError: FAISS is not installed.
        """
        return self._search(vectors, k, self.manifest.index.kind != "none")

    def _search(
        self, vectors: Float32[np.ndarray, "queries dim"] | Sequence[Sequence[float]], k: int, with_index: bool
    ) -> list[list[Neighbor]]:
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ShapeError(f"vectors have shape {list(vectors.shape)}, but the bank has dim {self.dim}",
                             f"give an array of shape [queries, {self.dim}]")  # fmt: skip
        if k < 1:
            raise UsageError(f"k is {k}", f"give a k from 1 to {self.manifest.index.rows:,}")
        queries, _ = normalize(vectors)
        k = min(k, self.manifest.index.rows)
        if with_index:
            coarse = self.manifest.index.kind != "flat"
            candidates = search_index(self._index, queries, min(4 * k + 32, self.manifest.index.rows) if coarse else k)
        else:
            candidates = nearest_to(queries, self.vectors, self.usable, k)
        nearest = []
        for query, ids in zip(queries, candidates, strict=True):
            ids = ids[ids >= 0]
            costs = pairwise_costs(np.array([-1]), ids, query[None], self.vectors(ids))[0]
            order = np.lexsort((ids, costs))[:k]
            nearest.append(self._neighbors_of(ids[order], costs[order]))
        return nearest

    @cached_property
    def raw(self) -> RawRows | None:
        """Measurements of the rows before they were normalized; None if the bank does not have them."""
        if ROWS not in self.manifest.files:
            return None
        shape = (self.size,)
        with self._opened_later(ROWS):
            tensors = self._tensors(ROWS, {"norms": ("F32", shape), "to_unused": ("F32", shape)})
        return RawRows(tensors["norms"].data, tensors["to_unused"].data)

    @property
    def has_map(self) -> bool:
        """Whether the bank has a two-dimensional map of its tokens; `costbank layout` makes one."""
        return MAP in self.manifest.files

    def map(self) -> Float32[np.ndarray, "vocab 2"]:
        """The place of every token on the bank's map; NaN for tokens without a vector.

        Raises:
            UsageError: the bank has no map.
            CorruptBankError: the file has another shape.
            BankNotFoundError: the bank was removed after it was opened.
        """
        if not self.has_map:
            raise UsageError(f"the bank {self.name}@{self.id} has no map", "`costbank layout` adds one to a bank")
        with self._opened_later(MAP):
            return self._tensors(MAP, {"xy": ("F32", (self.size, 2))})["xy"].data

    @property
    def index_rows(self) -> int:
        """The number of rows in the FAISS index."""
        return int(self._index.ntotal)

    @cached_property
    def _index(self) -> Any:
        with self._opened_later(INDEX) as path:
            data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest.files[INDEX].sha256:
            raise CorruptBankError(f"the sha256 of {self.path / INDEX} differs from the manifest's", REPAIR)
        return load_index(np.frombuffer(data, np.uint8))

    @contextmanager
    def _opened_later(self, name: str) -> Iterator[Path]:
        """The path of a file that is not open since the bank was opened, and may be gone if the bank was removed."""
        try:
            yield self.path / name
        except FileNotFoundError:
            raise BankNotFoundError(
                f"{self.path / name} is gone: the bank was removed after it was opened", "open another bank"
            ) from None

    def _open_tensors(self, name: str) -> Mapping[str, Any]:
        """The tensors of one file, mapped; a subclass may load them instead."""
        return map_tensors(self.path / name)

    def _tensors(self, name: str, expected: dict[str, tuple[str, tuple[int | None, ...]]]) -> Mapping[str, Any]:
        """The tensors of one file, with dtypes and shapes checked; None in a shape stands for any length."""
        path = self.path / name
        tensors = self._open_tensors(name)
        for key, (dtype, shape) in expected.items():
            spec = tensors[key].spec if key in tensors else None
            if spec is None or spec.dtype != dtype or not _has_shape(spec, shape):
                raise CorruptBankError(f"{path}: tensor {key!r} should be {dtype} of shape {list(shape)}", REPAIR)
        return tensors


def open_bank(reference: str | Path, store: str | Path | None = None) -> Bank:
    """Open a bank by `name`, `name@idprefix` or path. Rows are read from disk when they are used.

    Args:
        reference: which bank; a bare name means the id in its file `latest`.
        store: the directory of banks; by default `$COSTBANK_STORE`, else the platform's data directory.

    Raises:
        UsageError, BankNotFoundError: the reference matches no bank, or is neither a string nor a path.
        CorruptBankError: the manifest was changed, or a file's size differs from the manifest's.
    """
    if not isinstance(reference, str | Path):
        raise UsageError(
            f"open_bank takes a string or a Path, not {reference!r}",
            'give "name", "name@idprefix" or the path of a bank',
        )
    if isinstance(reference, Path):
        reference = f"{reference}/"
    banks = Store(Path(store) if store else None)
    path = banks.resolve(reference)
    for _ in range(_MOST_REPLACEMENTS):
        try:
            return Bank(path)
        except (BankNotFoundError, CorruptBankError):
            if path.exists():
                raise
        path = banks.resolve(reference)  # it was removed meanwhile, perhaps because a newer bank is there
    return Bank(path)


def _has_shape(spec: TensorSpec, shape: tuple[int | None, ...]) -> bool:
    return len(spec.shape) == len(shape) and all(
        expected in (None, length) for length, expected in zip(spec.shape, shape, strict=True)
    )
