"""Read a bank by memory map; reading never writes to it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

import numpy as np
from jaxtyping import Bool, Float32, Integer

from costbank.bank.manifest import INDEX, NEIGHBORS, REPAIR, ROWS, TOKENS, VECTORS, Manifest, check_sizes, load_manifest
from costbank.bank.matrix import Missing, hand_over, matrix_rows
from costbank.bank.store import Store
from costbank.cost import pairwise_costs
from costbank.errors import CorruptBankError, ShapeError, UsageError
from costbank.neighbors import NeighborTable, load_index, nearest_rows, nearest_to, search_index
from costbank.tensorfile import TensorSpec, map_tensors
from costbank.transforms import normalize
from costbank.vocab import Vocab

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Bank", "Neighbor", "RawRows", "open_bank"]


@dataclass(frozen=True)
class Neighbor:
    """A token and its cost. `text` is for people to read; `cost` has the digits of the float32 that it is."""

    id: int
    text: str
    cost: float


@dataclass(frozen=True)
class RawRows:
    """The source's rows as they were before any transform.

    Attributes:
        norms: Euclidean lengths; 0 for a row without a direction.
        to_unused: cosines to the mean of the rows of ids that no text uses; NaN where there are no such rows.
    """

    norms: Float32[np.ndarray, "vocab"]
    to_unused: Float32[np.ndarray, "vocab"]


class Bank:
    """A frozen cost embedding for every id of one tokenizer. Get one from `open_bank`.

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
        near = self._tensors(NEIGHBORS, {"ids": ("I32", table), "costs": ("F32", table)})
        self.neighbors = NeighborTable(near["ids"].data, near["costs"].data)

    def __repr__(self) -> str:
        return f"<Bank {self.name}@{self.id}: {self.size:,} tokens × {self.dim}>"

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def name(self) -> str:
        """The name it is kept under: that of the directory above its own."""
        return self.path.resolve().parent.name

    @property
    def size(self) -> int:
        """Number of token ids, which is the number of rows."""
        return self.manifest.vectors.vocab

    @property
    def dim(self) -> int:
        return self.manifest.vectors.dim

    def vectors(self, ids: Integer[np.ndarray, "rows"] | slice = slice(None)) -> Float32[np.ndarray, "rows dim"]:
        """The rows of some ids, or of all, as float32; F32 slices are read-only views of the file."""
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
        """All rows as one new float32 array [width, dim] on the CPU, for a loss of another library. It is writable.

        Args:
            kind: `numpy`; `torch`, a tensor; or `dlpack`, an object that `jax.numpy.from_dlpack` and its like take.
            vocab_size: the width of the logits where it is not the bank's. Ids past the bank's (the padding of a
                model's head) get a row without a vector. Fewer ids drop the bank's last rows.
            order: for logits in another order: the bank's id of each logit, −1 where it has no token.
            missing: what the row of a token without a vector is. `zero`: all zero, so that it costs 1 to every other.
                `own-axis`: there is one column more, which is 1 in these rows, and 0 elsewhere. Every row has unit
                length then, as code wants that divides by it (the published EMO code makes NaN of everything else).
                These tokens still cost 1 to those with a vector, but 0 to each other.

        Raises:
            UsageError: `kind` or `missing` is unknown, or both `vocab_size` and `order` are set.
            ShapeError: `vocab_size` is not positive, or `order` is not a vector of integers.
            TokenNotFoundError: `order` has an id that the bank does not have.
            MissingExtraError: PyTorch was asked for and is not installed.
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
            TokenNotFoundError: no token goes by that text, or the id is outside the vocabulary.
        """
        ids = np.array([self.vocab.find(token), self.vocab.find(target)])
        return shortest(self.cost_matrix(ids[:1], ids[1:])[0, 0])

    def cost_matrix(
        self, rows: Integer[np.ndarray, "rows"], columns: Integer[np.ndarray, "columns"]
    ) -> Float32[np.ndarray, "rows columns"]:
        """Costs of every row token to every column token.

        Raises:
            TokenNotFoundError: an id is outside the vocabulary.
        """
        for token_id in (*rows.tolist(), *columns.tolist()):
            self.vocab.check(token_id)
        return pairwise_costs(rows, columns, self.vectors(rows), self.vectors(columns))

    def nearest(self, token: str | SupportsIndex, k: int = 10) -> list[Neighbor]:
        """The k other tokens of least cost, ascending; none for a token without a vector.

        Served from the table where that is wide enough, else computed over all rows.

        Args:
            token: an id, or a text as `Vocab.match` takes it: `king`, `piece:king`, `id:123`, `hex:e4bda0`.
            k: how many.

        Raises:
            TokenNotFoundError: no token goes by that text, or the id is outside the vocabulary.
            UsageError: k is not between 1 and the number of other tokens.
        """
        token_id = self.vocab.find(token)
        self._check_k(token_id, k)
        if not self.has_vector(token_id):
            return []
        ids, costs = self.neighbors.ids[token_id, :k], self.neighbors.costs[token_id, :k]
        if k > self.neighbors.k and (ids >= 0).all():
            ids, costs = nearest_rows(token_id, self.vectors, self.usable, k)
        return self._named(ids, costs)

    def _check_k(self, token_id: int, k: int) -> None:
        self.vocab.check(token_id)
        if not 1 <= k < self.size:
            raise UsageError(
                f"k is {k}, and this bank has {self.size - 1:,} other tokens", f"ask for 1 to {self.size - 1:,}"
            )

    def _named(self, ids: Integer[np.ndarray, "found"], costs: Float32[np.ndarray, "found"]) -> list[Neighbor]:
        return [
            Neighbor(int(i), self.vocab.display(int(i)), shortest(cost))
            for i, cost in zip(ids, costs, strict=True)
            if i >= 0
        ]

    def search(self, vectors: Float32[np.ndarray, "queries dim"], k: int = 10) -> list[list[Neighbor]]:
        """The k tokens of least cost to each vector; vectors of any length are normalized first.

        The FAISS index finds them, and where it keeps the rows in fewer bits, more than k are decided by their costs.
        A bank without an index is searched row by row.

        Raises:
            UsageError: k is below 1.
            ShapeError: the vectors are not of the bank's size.
            CorruptBankError: index.faiss is not what the manifest says; FAISS has not read any of it.
            MissingExtraError: FAISS is not installed.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ShapeError(f"vectors of shape {list(vectors.shape)}, and the bank has dim {self.dim}",
                             f"give an array of shape [queries, {self.dim}]")  # fmt: skip
        if k < 1:
            raise UsageError(f"k is {k}", f"ask for 1 to {self.manifest.index.rows:,}")
        queries, _ = normalize(vectors)
        k = min(k, self.manifest.index.rows)
        if self.manifest.index.kind == "none":
            candidates = nearest_to(queries, self.vectors, self.usable, k)
        else:
            coarse = self.manifest.index.kind != "flat"
            candidates = search_index(self._index, queries, min(4 * k + 32, self.manifest.index.rows) if coarse else k)
        answers = []
        for query, ids in zip(queries, candidates, strict=True):
            ids = ids[ids >= 0]
            costs = pairwise_costs(np.array([-1]), ids, query[None], self.vectors(ids))[0]
            order = np.lexsort((ids, costs))[:k]
            answers.append([Neighbor(int(ids[i]), self.vocab.display(int(ids[i])), shortest(costs[i])) for i in order])
        return answers

    @cached_property
    def raw(self) -> RawRows | None:
        """Measurements of the rows before they were normalized; None if the bank does not hold them."""
        if ROWS not in self.manifest.files:
            return None
        shape = (self.size,)
        tensors = self._tensors(ROWS, {"norms": ("F32", shape), "to_unused": ("F32", shape)})
        return RawRows(tensors["norms"].data, tensors["to_unused"].data)

    @property
    def index_rows(self) -> int:
        """How many rows the FAISS index holds."""
        return int(self._index.ntotal)

    @cached_property
    def _index(self) -> Any:
        data = (self.path / INDEX).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest.files[INDEX].sha256:
            raise CorruptBankError(f"{self.path / INDEX} is not what the manifest says", REPAIR)
        return load_index(np.frombuffer(data, np.uint8))

    def _open_tensors(self, name: str) -> Mapping[str, Any]:
        """The tensors of one file, mapped; a subclass may load them instead."""
        return map_tensors(self.path / name)

    def _tensors(self, name: str, wanted: dict[str, tuple[str, tuple[int | None, ...]]]) -> Mapping[str, Any]:
        path = self.path / name
        tensors = self._open_tensors(name)
        for key, (dtype, shape) in wanted.items():
            spec = tensors[key].spec if key in tensors else None
            if spec is None or spec.dtype != dtype or not _fits(spec, shape):
                raise CorruptBankError(f"{path}: tensor {key!r} should be {dtype} of shape {list(shape)}", REPAIR)
        return tensors


def open_bank(reference: str | Path, store: str | Path | None = None) -> Bank:
    """Open a bank by `name`, `name@idprefix` or path. Nothing is loaded before it is used.

    Args:
        reference: which bank; a name means the one that its `latest` file names.
        store: directory of banks; by default `$COSTBANK_STORE`, else the platform's data directory.

    Raises:
        UsageError, BankNotFoundError: the reference leads to no bank.
        CorruptBankError: the manifest was changed, or a file has another size than it says.
    """
    if isinstance(reference, Path):
        reference = f"{reference}/"
    return Bank(Store(Path(store) if store else None).resolve(reference))


def shortest(cost: np.float32) -> float:
    """The float with the fewest digits that still names this float32: 0.1 rather than 0.10000000149011612."""
    return float(str(np.float32(cost)))


def _fits(spec: TensorSpec, shape: tuple[int | None, ...]) -> bool:
    return len(spec.shape) == len(shape) and all(w in (None, s) for s, w in zip(spec.shape, shape, strict=True))
