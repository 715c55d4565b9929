"""Check every file of a bank against its manifest, and its content against the rules of the format."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from costbank.bank.layout import INDEX, MANIFEST, MAP, NEIGHBORS, TOKENS, VECTORS
from costbank.bank.manifest import REPAIR, load_manifest
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
    """Compare the sha256 of files with the manifest's.

    Args:
        bank: the bank.
        names: the files to check.
        advance: called after each file with the number of bytes checked.

    Raises:
        CorruptBankError: the sha256 of a file differs; the message names the first one.
    """
    for name in names:
        digest = sha256_file(bank.path / name)
        if digest.sha256 != bank.manifest.files[name].sha256:
            raise CorruptBankError(f"the sha256 of {bank.path / name} differs from the manifest's", REPAIR)
        if advance:
            advance(digest.size)


def verify_bank(path: Path, advance: Callable[[int], None] | None = None) -> list[FileCheck]:
    """Check every file of a bank against the manifest's sha256, then the content against the rules of the format.

    Args:
        path: the bank's directory.
        advance: called after each file with the number of bytes checked.

    Returns:
        A check for each file, the manifest first, and one for each broken rule. If all are ok, the bank has exactly
        the bytes that its writer wrote.

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
    """Files that break a rule of the format, and how."""
    vocab = bank.vocab
    if vocab.offsets[0] != 0 or vocab.offsets[-1] != len(vocab.data) or (np.diff(vocab.offsets) < 0).any():
        yield TOKENS, "offsets do not rise from 0 to the number of bytes"
    if vocab.status.max() > max(TokenStatus):
        yield TOKENS, f"has status {vocab.status.max()}, which the format does not define"
    elif vocab.status_counts() != bank.manifest.status:
        yield TOKENS, "the number of tokens of each status differs from the manifest's"
    tolerance = _NORM_TOLERANCE[bank.manifest.vectors.dtype]
    step = max(1, _BLOCK_ELEMENTS // bank.dim)
    for start in range(0, bank.size, step):
        block = slice(start, start + step)
        norms = np.linalg.norm(bank.vectors(block).astype(np.float64), axis=1)
        not_unit = ~((norms == 0) | (np.abs(norms - 1) <= tolerance))
        if not_unit.any():
            row = start + int(not_unit.argmax())
            yield VECTORS, f"row {row} has length {norms[row - start]:.6g} instead of 1 or 0"
        bank.release()
    yield from ((NEIGHBORS, problem) for problem in _broken_table(bank))
    if bank.has_map and (np.isfinite(bank.map()) != bank.usable[:, None]).any():
        yield MAP, "a token with a vector has no place, or one without a vector has one"
    if bank.manifest.index.kind != "none" and find_spec("faiss"):
        rows = bank.index_rows
        if rows != bank.manifest.index.rows:
            yield INDEX, f"has {rows} rows instead of {bank.manifest.index.rows}"


def _broken_table(bank: Bank) -> Iterator[str]:
    """Violations of rule 11 by the table and of rule 10 by its costs, in all rows or, in a large bank, in a sample."""
    if not bank.neighbors.k:
        return
    usable = bank.usable
    work = bank.size * bank.neighbors.k * bank.dim
    rows = np.arange(0, bank.size, max(1, work // _MOST_RECOMPUTED))
    step = max(1, _BLOCK_ELEMENTS // (bank.neighbors.k * bank.dim))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        ids, costs = bank.neighbors.ids[block], bank.neighbors.costs[block]
        filled = ids >= 0
        where = f"in rows {block[0]} to {block[-1]}"
        if ((ids < -1) | (ids >= bank.size)).any():
            yield f"a neighbor's id {where} is out of range"
            return
        if (ids == block[:, None]).any():
            yield f"a token {where} is its own neighbor"
            return
        if (~usable[ids] & filled).any() or (filled & ~usable[block][:, None]).any():
            yield f"a token without a vector has a neighbor or is a neighbor, {where}"
        if (filled != np.isfinite(costs)).any() or (filled[:, 1:] & ~filled[:, :-1]).any():
            yield f"padding {where} is not −1 and inf at the end"
            return
        descends = (costs[:, :-1] > costs[:, 1:]) | ((costs[:, :-1] == costs[:, 1:]) & (ids[:, :-1] >= ids[:, 1:]))
        if (descends & filled[:, 1:]).any():
            yield f"neighbors {where} do not ascend by (cost, id)"
        others = bank.vectors(np.maximum(ids, 0).reshape(-1)).reshape(*ids.shape, -1)
        if (np.abs(row_costs(bank.vectors(block), others) - costs)[filled] > _COST_TOLERANCE).any():
            yield f"a cost {where} differs from the cost of the vectors"
            return
        bank.release()
