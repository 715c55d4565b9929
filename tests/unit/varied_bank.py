"""Banks with or without counts, measures of raw rows, neighbors and a map."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from costbank.bank import Bank, BankWriter
from costbank.bank.manifest import BankFacts, write_manifest
from costbank.neighbors import NeighborTable, exact_neighbors
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

__all__ = ["varied_bank"]


def varied_bank(
    place: Path,
    tokens: Sequence[bytes],
    *,
    k: int = 4,
    dim: int = 8,
    counts: Sequence[int] | None = None,
    norms: np.ndarray | None = None,
    status: Sequence[TokenStatus] | None = None,
    without_vector: Sequence[int] = (),
    mapped: bool = False,
    config: dict[str, object] | None = None,
    seed: int = 0,
) -> Bank:
    """A bank of random unit rows for these tokens; `mapped` gives each token with a vector a place on a map."""
    random = np.random.default_rng(seed)
    rows = normalize(random.standard_normal((len(tokens), dim), np.float32) + 0.3)[0]
    rows[list(without_vector)] = 0
    usable = rows.any(axis=1)
    vocab = Vocab.from_tokens(tokens, status or [TokenStatus.OK] * len(tokens), counts)
    with BankWriter(place / "varied") as writer:
        writer.write_vectors(rows.shape, "F32", [rows])
        writer.write_tokens(vocab)
        if norms is not None:
            writer.write_rows(norms.astype(np.float32), np.full(len(tokens), np.nan, np.float32))
        table = exact_neighbors(rows.__getitem__, usable, k) if k else NeighborTable.empty(len(tokens), 0)
        writer.write_neighbors(table)
        facts = {
            "costbank": "0", "created": "2026-11-28T00:00:00+00:00", "reproducible": True, "source": "random",
            "config": {"seed": seed, **(config or {})}, "run": {}, "facts": {}, "inputs": [], "libraries": {},
            "seconds": {}, "status": vocab.status_counts(),
            "tokenizer": {"kind": "none", "file": "none", "sha256": "", "fingerprint": vocab.fingerprint},
            "vectors": {"vocab": len(tokens), "dim": dim, "dtype": "F32"},
            "neighbors": {"k": k, "exact": True, "recall": 1.0}, "index": {"kind": "none", "rows": 0},
        }  # fmt: skip
        path = writer.publish(BankFacts.model_validate(facts), lambda _: "a card\n")
    if mapped:
        xy = random.standard_normal((len(tokens), 2)).astype(np.float32)
        xy[~usable] = np.nan
        _add_map(path, save({"xy": xy}))
    return Bank(path)


def _add_map(path: Path, data: bytes) -> None:
    (path / "map.safetensors").write_bytes(data)
    facts = json.loads((path / "manifest.json").read_bytes())
    del facts["digest"]
    facts["map"] = {"seed": 0, "method": "random", "neighbors": 4, "kept": 0.25, "kept_of": 10, "sampled": 100}
    facts["files"]["map.safetensors"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "manifest.json").write_bytes(write_manifest(facts))
