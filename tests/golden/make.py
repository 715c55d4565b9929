"""Makes the golden banks of a bank format. Run it once for each format, and never again for that format.

python -m tests.golden.make data/golden
"""

import sys
from pathlib import Path

import numpy as np

from costbank.bank import BankWriter
from costbank.bank.card import write_card
from costbank.bank.manifest import BankFacts
from costbank.neighbors import build_index, exact_neighbors
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

TOKENS = [
    b"<unk>",
    b"<s>",
    *[bytes([byte]) for byte in range(256)],
    b" king",
    b" queen",
    b"king",
    " 日本".encode(),
    b"",
]
STATUS = [*[TokenStatus.SPECIAL] * 2, *[TokenStatus.BYTE] * 256, *[TokenStatus.OK] * 4, TokenStatus.UNUSED]
DIM, K = 4, 5


def make(directory: Path, dtype: str) -> Path:
    """Rows of small integers from a linear congruential sequence, so that no random generator is needed."""
    numbers = np.array([(1_103_515_245 * i + 12_345) % 2_147_483_648 for i in range(len(TOKENS) * DIM)])
    rows = normalize(((numbers >> 16) % 17 - 8).reshape(-1, DIM).astype(np.float32))[0]
    rows[[0, 1, len(TOKENS) - 1]] = 0
    vocab = Vocab.from_tokens(TOKENS, STATUS, list(range(len(TOKENS))))
    with BankWriter(directory / dtype.lower()) as writer:
        stored = writer.write_vectors((len(TOKENS), DIM), dtype, [rows]).float32(slice(None))
        usable = stored.any(axis=1)
        writer.write_tokens(vocab)
        table = exact_neighbors(stored.__getitem__, usable, K)
        writer.write_neighbors(table)
        writer.write_index(build_index(stored.__getitem__, usable)[1])
        facts = {
            "costbank": "0.1.0", "created": "2026-11-21T00:00:00+00:00", "reproducible": True, "source": "golden",
            "config": {"source": "golden"}, "run": {}, "facts": {}, "inputs": [], "libraries": {}, "seconds": {},
            "tokenizer": {"kind": "golden", "file": "none", "sha256": "0" * 64, "fingerprint": vocab.fingerprint},
            "vectors": {"vocab": len(TOKENS), "dim": DIM, "dtype": dtype}, "status": vocab.status_counts(),
            "neighbors": {"k": K, "exact": True, "recall": 1.0}, "index": {"kind": "flat", "rows": int(usable.sum())},
        }  # fmt: skip
        return writer.publish(BankFacts.model_validate(facts), lambda manifest: write_card(manifest, []))


if __name__ == "__main__":
    for each in ("F32", "F16", "BF16"):
        print(make(Path(sys.argv[1]), each))
