"""Add a map of the tokens to a bank that exists, while other processes read it.

A map is derived from the bank, and its id does not cover it. The manifest lists a map only while map.safetensors has
the listed bytes: the file is renamed to its name first, and then a manifest that lists it takes the place of the old
one. All other files stay as they are, so whoever has opened the bank notices nothing.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from costbank.bank.layout import MANIFEST, MAP
from costbank.bank.manifest import MapFacts, read_manifest, write_manifest
from costbank.errors import BankNotFoundError, StorageError
from costbank.files import FileDigest, fsync_directory, locked, staging_directory, storage_errors
from costbank.tensorfile import TensorSpec, write_tensors

__all__ = ["STEPS", "add_map", "check_can_add", "place_map", "stage_map"]

STEPS = ("staged", "older map unlisted", "map renamed", "manifest renamed")
"""The steps of adding a map; a process may die after any of them. The second is only for a bank that has a map."""

_NEXT_MANIFEST = "next-manifest.json"

OnStep = Callable[[str], None]


def check_can_add(bank: Path) -> None:
    """Check, before a map is computed, that it can be stored.

    Raises:
        StorageError: the bank's directory, or the one that it is in, cannot be written.
    """
    for directory in (bank, bank.resolve().parent):
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StorageError(
                f"cannot write to {directory}: Permission denied",
                "copy the bank into a store of your own, then make the map there",
            )


def add_map(bank: Path, xy: Float32[np.ndarray, "vocab 2"], facts: MapFacts, on_step: OnStep | None = None) -> None:
    """Give a bank this map, in place of one that it may have; its id and all its other files stay the same.

    Args:
        bank: the bank's directory.
        xy: the place of each token; NaN for tokens without a vector.
        facts: how it was made.
        on_step: called with each of `STEPS` when it is done.

    Raises:
        BankNotFoundError: the bank was removed meanwhile.
        CorruptBankError: its manifest is damaged.
        StorageError: the disk is full, or the store cannot be written.
    """
    on_step = on_step or _ignore
    bank = bank.resolve()
    with storage_errors(bank.parent), staging_directory(bank.parent) as staged:
        digest = stage_map(staged, xy)
        on_step("staged")
        with locked(bank.parent):  # so that no other process removes the bank or adds another map at the same time
            place_map(bank, staged, digest, facts, on_step)


def stage_map(staged: Path, xy: Float32[np.ndarray, "vocab 2"]) -> FileDigest:
    """Write map.safetensors into a staging directory, and sync it."""
    return write_tensors(staged / MAP, {"xy": (TensorSpec("F32", xy.shape), [xy])})


def place_map(bank: Path, staged: Path, digest: FileDigest, facts: MapFacts, on_step: OnStep | None = None) -> None:
    """Move a staged map into a bank, and list it. The caller holds the lock of the bank's parent directory."""
    on_step = on_step or _ignore
    content = _manifest_content(bank)
    if MAP in content["files"]:  # a manifest never lists a map of other bytes
        content.pop("map", None)
        del content["files"][MAP]
        _replace_manifest(bank, staged, content)
        on_step("older map unlisted")
    (staged / MAP).rename(bank / MAP)
    fsync_directory(bank)
    on_step("map renamed")
    content["map"] = facts.model_dump(mode="json")
    content["files"][MAP] = asdict(digest)
    _replace_manifest(bank, staged, content)
    on_step("manifest renamed")


def _manifest_content(bank: Path) -> dict[str, Any]:
    """All keys of a bank's manifest, also those of later versions, except for the digest."""
    path = bank / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BankNotFoundError(f"{bank} is gone: the bank was removed meanwhile", "build or copy it again") from None
    read_manifest(data, str(path))
    content = json.loads(data)
    del content["digest"]
    return content


def _replace_manifest(bank: Path, staged: Path, content: dict[str, Any]) -> None:
    path = staged / _NEXT_MANIFEST
    with path.open("xb") as file:
        file.write(write_manifest(content))
        file.flush()
        os.fsync(file.fileno())
    path.rename(bank / MANIFEST)
    fsync_directory(bank)


def _ignore(step: str) -> None:
    pass
