"""Checking a bank to the last byte, and that its content keeps the rules of the format."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from costbank.bank.manifest import INDEX, MANIFEST, NEIGHBORS, REPAIR, TOKENS, VECTORS, load_manifest
from costbank.bank.reader import Bank
from costbank.cost import row_costs
from costbank.errors import CorruptBankError
from costbank.files import sha256_file
from costbank.vocab import TokenStatus

__all__ = ["FileCheck", "check_digests", "verify_bank"]

_BLOCK_ELEMENTS = 1 << 22
_MOST_RECOMPUTED = 1 << 33
_COST_TOLERANCE = 1e-6
_NORM_TOLERANCE = {"F32": 1e-5, "F16": 2e-3, "BF16": 1e-2}


@dataclass(frozen=True)
class FileCheck:
    """One file of a bank: its name, and what is wrong with it, or nothing."""

    name: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def check_digests(bank: Bank, names: Iterable[str], advance: Callable[[int], None] | None = None) -> None:
    """Make sure that files are what the manifest says before anything is made of them.

    Args:
        bank: the bank.
        names: which of its files.
        advance: told the bytes that were checked after each file.

    Raises:
        CorruptBankError: the first file that is not.
    """
    for name in names:
        found = sha256_file(bank.path / name)
        if found.sha256 != bank.manifest.files[name].sha256:
            raise CorruptBankError(f"{bank.path / name} is not what the manifest says", REPAIR)
        if advance:
            advance(found.size)


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
        return [FileCheck(MANIFEST, error.message)]
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
            checks.append(FileCheck("content", error.message))
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
    step = max(1, _BLOCK_ELEMENTS // bank.dim)
    for start in range(0, bank.size, step):
        block = slice(start, start + step)
        norms = np.linalg.norm(bank.vectors(block).astype(np.float64), axis=1)
        wrong = ~((norms == 0) | (np.abs(norms - 1) <= tolerance))
        if wrong.any():
            row = start + int(wrong.argmax())
            yield VECTORS, f"row {row} has length {norms[row - start]:.6g}, neither 1 nor 0"
        bank.release()
    yield from ((NEIGHBORS, problem) for problem in _broken_table(bank))
    if bank.manifest.index.kind != "none" and find_spec("faiss"):
        rows = bank.index_rows
        if rows != bank.manifest.index.rows:
            yield INDEX, f"holds {rows} rows, and the manifest says {bank.manifest.index.rows}"


def _broken_table(bank: Bank) -> Iterator[str]:
    """Rule 11, and that the costs are those of rule 10: for all rows, or in a large bank for some."""
    if not bank.neighbors.k:
        return
    usable = bank.usable
    work = bank.size * bank.neighbors.k * bank.dim
    rows = np.arange(0, bank.size, max(1, work // _MOST_RECOMPUTED))
    step = max(1, _BLOCK_ELEMENTS // (bank.neighbors.k * bank.dim))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        ids, costs = bank.neighbors.ids[part], bank.neighbors.costs[part]
        there = ids >= 0
        where = f"between rows {part[0]} and {part[-1]}"
        if ((ids < -1) | (ids >= bank.size)).any():
            yield f"a neighbor's id {where} is out of range"
            return
        if (ids == part[:, None]).any():
            yield f"a token {where} is its own neighbor"
            return
        if (~usable[ids] & there).any() or (there & ~usable[part][:, None]).any():
            yield f"a token without a vector has a neighbor or is one, {where}"
        if (there != np.isfinite(costs)).any() or (there[:, 1:] & ~there[:, :-1]).any():
            yield f"padding {where} is not −1 and inf at the end"
            return
        falls = (costs[:, :-1] > costs[:, 1:]) | ((costs[:, :-1] == costs[:, 1:]) & (ids[:, :-1] >= ids[:, 1:]))
        if (falls & there[:, 1:]).any():
            yield f"neighbors {where} do not ascend by (cost, id)"
        others = bank.vectors(np.maximum(ids, 0).reshape(-1)).reshape(*ids.shape, -1)
        if (np.abs(row_costs(bank.vectors(part), others) - costs)[there] > _COST_TOLERANCE).any():
            yield f"a cost {where} is not that of the rows"
            return
        bank.release()
