"""Small banks that the tests of the service write themselves."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from costbank.bank import Bank, BankWriter
from costbank.bank.manifest import BankFacts, write_manifest
from costbank.cost import row_costs
from costbank.neighbors import NeighborTable, build_index, exact_neighbors
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

__all__ = ["add_map", "write_bank", "write_mapped_bank"]


def write_bank(
    directory: Path, tokens: list[bytes], dim: int = 8, k: int = 4, index: bool = True, seed: int = 0,
    created: str = "", is_exact: bool = True,
) -> Bank:  # fmt: skip
    """A bank of random unit rows, with an exact table, or quickly one of any tokens, and optionally a flat index."""
    rows = normalize(np.random.default_rng(seed).standard_normal((len(tokens), dim), np.float32))[0]
    vocab = Vocab.from_tokens(tokens, [TokenStatus.OK] * len(tokens))
    usable = np.ones(len(tokens), bool)
    with BankWriter(directory) as writer:
        writer.write_vectors(rows.shape, "F32", [rows])
        writer.write_tokens(vocab)
        writer.write_neighbors(exact_neighbors(rows.__getitem__, usable, k) if is_exact else _any_neighbors(rows, k))
        kind = "none"
        if index:
            kind, serialized = build_index(rows.__getitem__, usable)
            writer.write_index(serialized)
        facts = {
            "costbank": "0", "created": created, "reproducible": True, "source": "random", "config": {"seed": seed},
            "run": {}, "facts": {}, "inputs": [], "libraries": {}, "seconds": {}, "status": vocab.status_counts(),
            "tokenizer": {"kind": "none", "file": "none", "sha256": "", "fingerprint": vocab.fingerprint},
            "vectors": {"vocab": len(tokens), "dim": dim, "dtype": "F32"},
            "neighbors": {"k": k, "exact": True, "recall": 1.0}, "index": {"kind": kind, "rows": len(tokens)},
        }  # fmt: skip
        return Bank(writer.publish(BankFacts.model_validate(facts), lambda manifest: f"random bank {manifest.id}\n"))


def _any_neighbors(rows: np.ndarray, k: int) -> NeighborTable:
    """The k ids after each id, with their costs."""
    size = len(rows)
    ids = (np.arange(size)[:, None] + np.arange(1, k + 1)) % size
    costs = row_costs(rows, rows[ids])
    order = np.argsort(costs, axis=1, kind="stable")
    return NeighborTable(np.take_along_axis(ids, order, 1).astype(np.int32), np.take_along_axis(costs, order, 1))


def write_mapped_bank(directory: Path, size: int = 6) -> Bank:
    """A bank with a map; the last token has no place on it."""
    bank = write_bank(directory, [b" token%d" % i for i in range(size)])
    xy = np.arange(2 * size, dtype=np.float32).reshape(size, 2) / 4
    xy[-1] = np.nan
    return add_map(bank, xy)


def add_map(bank: Bank, xy: np.ndarray) -> Bank:
    """The bank, whose directory now also has these places of its tokens."""
    data = save({"xy": xy})
    (bank.path / "map.safetensors").write_bytes(data)
    manifest = bank.path / "manifest.json"
    facts = json.loads(manifest.read_bytes())
    del facts["digest"]
    facts["files"]["map.safetensors"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_bytes(write_manifest(facts))
    return Bank(bank.path)
