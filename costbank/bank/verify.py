"""Checking a bank to the last byte, and that its content keeps the rules of the format."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from costbank.bank.manifest import MANIFEST, NEIGHBORS, TOKENS, VECTORS, load_manifest
from costbank.bank.reader import Bank
from costbank.errors import CorruptBankError
from costbank.tensorfile import sha256_file
from costbank.vocab import TokenStatus

__all__ = ["FileCheck", "verify_bank"]

_BLOCK_ROWS = 16_384
_NORM_TOLERANCE = {"F32": 1e-5, "F16": 2e-3, "BF16": 1e-2}


@dataclass(frozen=True)
class FileCheck:
    """One file of a bank: its name, and what is wrong with it, or nothing."""

    name: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def verify_bank(path: Path, advance: Callable[[int], None] | None = None) -> list[FileCheck]:
    """Check every file of the bank in `path` against the manifest's sha256, then the rules of the format.

    Args:
        path: the bank's directory.
        advance: told the bytes that were checked after each file.

    Returns:
        A check for each file, the manifest first. A bank without problems is what its writer wrote.

    Raises:
        BankNotFoundError: there is no manifest.
    """
    try:
        manifest = load_manifest(path)
    except CorruptBankError as error:
        return [FileCheck(MANIFEST, str(error))]
    checks = [FileCheck(MANIFEST)]
    for name, facts in manifest.files.items():
        try:
            found = sha256_file(path / name)
        except OSError as error:
            checks.append(FileCheck(name, error.strerror or "cannot be read"))
            continue
        if advance:
            advance(found.size)
        if found.size != facts.size:
            checks.append(FileCheck(name, f"has {found.size:,} bytes instead of {facts.size:,}"))
        elif found.sha256 != facts.sha256:
            checks.append(FileCheck(name, f"sha256 is {found.sha256[:12]}… instead of {facts.sha256[:12]}…"))
        else:
            checks.append(FileCheck(name))
    if all(check.ok for check in checks):
        try:
            checks += [FileCheck(name, problem) for name, problem in _broken_rules(Bank(path))]
        except CorruptBankError as error:
            checks.append(FileCheck("content", str(error)))
    return checks


def _broken_rules(bank: Bank) -> Iterator[tuple[str, str]]:
    vocab = bank.vocab
    if vocab.offsets[0] != 0 or vocab.offsets[-1] != len(vocab.data) or (np.diff(vocab.offsets) < 0).any():
        yield TOKENS, "offsets do not rise from 0 to the number of bytes"
    if vocab.status.max() > max(TokenStatus):
        yield TOKENS, f"status {vocab.status.max()} is none of the format's"
    elif vocab.status_counts() != bank.manifest.status:
        yield TOKENS, "statuses are not as many of each as the manifest says"
    tolerance = _NORM_TOLERANCE[bank.manifest.vectors.dtype]
    for start in range(0, bank.size, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        norms = np.linalg.norm(bank.vectors(block).astype(np.float64), axis=1)
        wrong = ~((norms == 0) | (np.abs(norms - 1) <= tolerance))
        if wrong.any():
            row = start + int(wrong.argmax())
            yield VECTORS, f"row {row} has length {norms[row - start]:.6g}, neither 1 nor 0"
        ids, costs = bank.neighbors.ids[block], bank.neighbors.costs[block]
        own = np.arange(start, start + len(ids))[:, None]
        if ((ids < -1) | (ids >= bank.size) | (ids == own)).any():
            yield NEIGHBORS, f"an id between rows {start} and {start + len(ids)} is no other token"
        if (costs[:, :-1] > costs[:, 1:]).any() or not ((ids < 0) == np.isinf(costs)).all():
            yield NEIGHBORS, f"costs between rows {start} and {start + len(ids)} do not ascend"
