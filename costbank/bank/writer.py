"""Write a bank: all files in a staging directory, then one rename.

The files may be written in any order; `publish` computes the bank's id from its content and makes the bank visible. A
process that dies before that leaves only a staging directory, which no reader lists and the next writer removes.
"""

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float32

from costbank.bank.layout import CARD, INDEX, LATEST, MANIFEST, MAP, NEIGHBORS, ROWS, TOKENS, VECTORS
from costbank.bank.manifest import FORMAT, BankFacts, Manifest, bank_id, load_manifest, write_manifest
from costbank.bank.maps import place_map, stage_map
from costbank.bank.verify import verify_bank
from costbank.element_types import from_float32
from costbank.errors import CorruptBankError, require
from costbank.files import (
    FileDigest,
    fsync_directory,
    locked,
    sha256_file,
    staging_directory,
    storage_errors,
    write_atomically,
)
from costbank.neighbors import NeighborTable
from costbank.tensorfile import MappedTensor, TensorSpec, map_tensors, write_tensors
from costbank.vocab import Vocab

__all__ = ["STEPS", "BankWriter"]

STEPS = (
    "staged",
    "vectors written",
    "tokens written",
    "rows written",
    "neighbors written",
    "index written",
    "map written",
    "card written",
    "manifest written",
    "directory synced",
    "renamed",
    "parent synced",
    "latest replaced",
)
"""The steps of a write, in the order of the pipeline; a process may die after any of them."""

OnStep = Callable[[str], None]


class BankWriter:
    """A context in which the files of one new bank are written.

    Args:
        directory: `<store>/<name>`; it is created if it does not exist.
        on_step: called with each of `STEPS` when it is done.

    Raises:
        StorageError: the disk is full, or the directory cannot be written.
    """

    def __init__(self, directory: Path, on_step: OnStep | None = None) -> None:
        self._directory, self._on_step = directory, on_step or _ignore
        self._files: dict[str, FileDigest] = {}
        self._contexts = ExitStack()
        self._staged = Path()

    def __enter__(self) -> Self:
        with ExitStack() as contexts:
            contexts.enter_context(storage_errors(self._directory))
            self._staged = contexts.enter_context(staging_directory(self._directory))
            self._contexts = contexts.pop_all()
        self._on_step("staged")
        return self

    def __exit__(self, *exception: Any) -> None:
        self._contexts.__exit__(*exception)

    def write_vectors(
        self, shape: tuple[int, int], dtype: str, blocks: Iterable[Float32[np.ndarray, "rows dim"]]
    ) -> MappedTensor:
        """Write the unit rows block by block, rounded to `dtype`; returns them mapped, as readers will see them."""
        rounded = (from_float32(block, dtype) for block in blocks)
        self._write_tensors(VECTORS, {"vectors": (TensorSpec(dtype, shape), rounded)})
        self._on_step("vectors written")
        return map_tensors(self._staged / VECTORS)["vectors"]

    def write_tokens(self, vocab: Vocab) -> None:
        self._write_tensors(
            TOKENS,
            {
                "offsets": (TensorSpec("I64", vocab.offsets.shape), [vocab.offsets]),
                "counts": (TensorSpec("I64", vocab.counts.shape), [vocab.counts]),
                "bytes": (TensorSpec("U8", vocab.data.shape), [vocab.data]),
                "status": (TensorSpec("U8", vocab.status.shape), [vocab.status]),
            },
        )
        self._on_step("tokens written")

    def write_rows(self, norms: Float32[np.ndarray, "vocab"], to_unused: Float32[np.ndarray, "vocab"]) -> None:
        """Write the measurements of the raw rows; `RawRows` describes them."""
        self._write_tensors(
            ROWS,
            {
                "norms": (TensorSpec("F32", norms.shape), [norms]),
                "to_unused": (TensorSpec("F32", norms.shape), [to_unused]),
            },
        )
        self._on_step("rows written")

    def write_neighbors(self, table: NeighborTable) -> None:
        self._write_tensors(
            NEIGHBORS,
            {
                "ids": (TensorSpec("I32", table.ids.shape), [table.ids]),
                "costs": (TensorSpec("F32", table.costs.shape), [table.costs]),
            },
        )
        self._on_step("neighbors written")

    def write_index(self, index: Any) -> None:
        """Write a FAISS index directly to its file, without another copy in memory."""
        path = self._staged / INDEX
        faiss = require("faiss", "build")
        try:
            faiss.write_index(index, str(path))
        except RuntimeError as error:  # FAISS reports a failed write without an errno
            raise OSError(errno.ENOSPC, str(error).splitlines()[0]) from error
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._files[INDEX] = sha256_file(path)
        self._on_step("index written")

    def write_map(self, xy: Float32[np.ndarray, "vocab 2"]) -> None:
        """Write the places of all tokens on a map; NaN for tokens without a vector."""
        self._files[MAP] = stage_map(self._staged, xy)
        self._on_step("map written")

    def publish(self, facts: BankFacts, card: Callable[[Manifest], str]) -> Path:
        """Compute the bank's id, write its card and manifest, rename its directory to the id, and update `latest`.

        Args:
            facts: the content of the manifest, except for the format, the id and the files.
            card: makes the card from the manifest, which at that time lists all files except the card.

        Returns:
            The bank's directory. An existing bank with the same id is not rewritten; but if it has no map, and this
            writer has written one, that map is added to it.

        Raises:
            CorruptBankError: a bank with the same id exists and is damaged.
        """
        files = {name: asdict(digest) for name, digest in self._files.items()}
        identity = bank_id(facts.tokenizer.fingerprint, facts.config, files)
        content = {"format": FORMAT, "id": identity, **facts.as_json(), "files": files}
        self._write_bytes(CARD, card(Manifest.model_validate(content)).encode(errors="backslashreplace"))
        content["files"] = files | {CARD: asdict(self._files[CARD])}
        self._on_step("card written")
        self._write_bytes(MANIFEST, write_manifest(content))
        self._on_step("manifest written")
        fsync_directory(self._staged)
        self._on_step("directory synced")
        with locked(self._directory):  # so that no other process removes the bank before `latest` names it
            return self._make_visible(identity, facts)

    def _make_visible(self, identity: str, facts: BankFacts) -> Path:
        """Rename the directory to the id, and update `latest`."""
        final = self._directory / identity
        if not final.exists():
            self._staged.rename(final)
        elif damaged := [check for check in verify_bank(final) if not check.ok]:
            raise CorruptBankError(
                f"the bank {final} exists already and is damaged: {damaged[0].name}: {damaged[0].problem}",
                f"remove it with `costbank rm {self._directory.name}@{identity}`, then build again",
            )
        elif facts.map and MAP in self._files and MAP not in load_manifest(final).files:
            place_map(final, self._staged, self._files[MAP], facts.map)
        self._on_step("renamed")
        fsync_directory(self._directory)
        self._on_step("parent synced")
        write_atomically(self._directory / LATEST, f"{identity}\n".encode())
        self._on_step("latest replaced")
        return final

    def _write_tensors(self, name: str, tensors: dict[str, tuple[TensorSpec, Iterable[np.ndarray]]]) -> None:
        self._files[name] = write_tensors(self._staged / name, tensors)

    def _write_bytes(self, name: str, content: bytes) -> None:
        path = self._staged / name
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._files[name] = sha256_file(path)


def _ignore(step: str) -> None:
    pass
