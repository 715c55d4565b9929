"""Check every byte of a bank against its manifest, and its content against the rules of the format."""

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
    """The result of checking one file of a bank; `problem` is empty if the file is intact."""

    name: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def check_digests(bank: Bank, names: Iterable[str], advance: Callable[[int], None] | None = None) -> None:
    """Compare files with the sha256 in the manifest before they are used.

    Args:
        bank: the bank.
        names: the files to check.
        advance: called after each file with the number of bytes checked.

    Raises:
        CorruptBankError: a file does not match; the message names the first one.
    """
    for name in names:
        digest = sha256_file(bank.path / name)
        if digest.sha256 != bank.manifest.files[name].sha256:
            raise CorruptBankError(f"{bank.path / name} is not what the manifest says", REPAIR)
        if advance:
            advance(digest.size)


def verify_bank(path: Path, advance: Callable[[int], None] | None = None) -> list[FileCheck]:
    """Check every file of the bank in `path` against the manifest's sha256, then the rules of the format.

    Args:
        path: the bank's directory.
        advance: called after each file with the number of bytes checked.

    Returns:
        A check for each file, the manifest first. A bank without problems is what its writer wrote.

    Raises:
        BankNotFoundError: the directory has no manifest.
    """
    try:
        manifest = load_manifest(path)
    except CorruptBankError as error:
        return [FileCheck(MANIFEST, error.message)]
    checks = [FileCheck(MANIFEST)]
    for name, facts in manifest.files.items():
        try:
            digest = sha256_file(path / name)
        except OSError as error:
            checks.append(FileCheck(name, error.strerror or "cannot be read"))
            continue
        if advance:
            advance(digest.size)
        if digest.size != facts.size:
            checks.append(FileCheck(name, f"has {digest.size:,} bytes instead of {facts.size:,}"))
        elif digest.sha256 != facts.sha256:
            checks.append(FileCheck(name, f"sha256 is {digest.sha256[:12]}… instead of {facts.sha256[:12]}…"))
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
        not_unit = ~((norms == 0) | (np.abs(norms - 1) <= tolerance))
        if not_unit.any():
            row = start + int(not_unit.argmax())
            yield VECTORS, f"row {row} has length {norms[row - start]:.6g}, neither 1 nor 0"
        bank.release()
    yield from ((NEIGHBORS, problem) for problem in _broken_table(bank))
    if bank.manifest.index.kind != "none" and find_spec("faiss"):
        rows = bank.index_rows
        if rows != bank.manifest.index.rows:
            yield INDEX, f"holds {rows} rows, and the manifest says {bank.manifest.index.rows}"


def _broken_table(bank: Bank) -> Iterator[str]:
    """Violations of rule 11, and of rule 10 by the costs: checked for all rows, or for a sample in a large bank."""
    if not bank.neighbors.k:
        return
    usable = bank.usable
    work = bank.size * bank.neighbors.k * bank.dim
    rows = np.arange(0, bank.size, max(1, work // _MOST_RECOMPUTED))
    step = max(1, _BLOCK_ELEMENTS // (bank.neighbors.k * bank.dim))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        ids, costs = bank.neighbors.ids[part], bank.neighbors.costs[part]
        filled = ids >= 0
        where = f"between rows {part[0]} and {part[-1]}"
        if ((ids < -1) | (ids >= bank.size)).any():
            yield f"a neighbor's id {where} is out of range"
            return
        if (ids == part[:, None]).any():
            yield f"a token {where} is its own neighbor"
            return
        if (~usable[ids] & filled).any() or (filled & ~usable[part][:, None]).any():
            yield f"a token without a vector has a neighbor or is one, {where}"
        if (filled != np.isfinite(costs)).any() or (filled[:, 1:] & ~filled[:, :-1]).any():
            yield f"padding {where} is not −1 and inf at the end"
            return
        falls = (costs[:, :-1] > costs[:, 1:]) | ((costs[:, :-1] == costs[:, 1:]) & (ids[:, :-1] >= ids[:, 1:]))
        if (falls & filled[:, 1:]).any():
            yield f"neighbors {where} do not ascend by (cost, id)"
        others = bank.vectors(np.maximum(ids, 0).reshape(-1)).reshape(*ids.shape, -1)
        if (np.abs(row_costs(bank.vectors(part), others) - costs)[filled] > _COST_TOLERANCE).any():
            yield f"a cost {where} is not that of the rows"
            return
        bank.release()
