from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from costbank.bank import Bank, BankWriter
from costbank.bank.manifest import BankFacts
from costbank.neighbors import exact_neighbors
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab


def small_bank(
    place: Path, rows: Mapping[str, Sequence[float] | np.ndarray], k: int = 2, unseen: tuple[str, ...] = ()
) -> Bank:
    """A bank of these tokens and their rows, normalized; unseen tokens have rows of zeros."""
    status = [TokenStatus.UNSEEN if token in unseen else TokenStatus.OK for token in rows]
    vocab = Vocab.from_tokens([token.encode() for token in rows], status)
    unit, _ = normalize(np.array(list(rows.values()), np.float32))
    unit[vocab.status == TokenStatus.UNSEEN] = 0
    own = Vocab.from_tokens([token.encode() for token in rows], [TokenStatus.OK] * len(rows))
    with BankWriter(place / "bank") as writer:
        stored = writer.write_vectors(unit.shape, "F32", [unit])
        writer.write_tokens(vocab)
        writer.write_neighbors(exact_neighbors(stored.float32, stored.data.any(axis=1), k))
        facts = {
            "costbank": "0.1.0", "created": "2026-11-21T00:00:00+00:00", "reproducible": True, "source": "test",
            "config": {"source": "test"}, "run": {}, "facts": {}, "inputs": [], "libraries": {}, "seconds": {},
            "tokenizer": {"kind": "test", "file": "none", "sha256": "0" * 64, "fingerprint": own.fingerprint},
            "vectors": {"vocab": len(unit), "dim": unit.shape[1], "dtype": "F32"}, "status": vocab.status_counts(),
            "neighbors": {"k": k, "exact": True, "recall": 1.0}, "index": {"kind": "none", "rows": 0},
        }  # fmt: skip
        return Bank(writer.publish(BankFacts.model_validate(facts), lambda _: "a card\n"))
