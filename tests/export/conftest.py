from pathlib import Path

import numpy as np
import pytest

from costbank.bank import Bank, BankWriter
from costbank.bank.card import write_card
from costbank.bank.manifest import BankFacts
from costbank.neighbors import NeighborTable, build_index, exact_neighbors
from costbank.tokenizers import load_tokenizer
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

ODD = [
    b"<unk>",
    b"",
    b"",
    b" ",
    b"  ",
    " ▁".encode(),
    "▁".encode(),
    b" king",
    "▁king".encode(),
    b"king",
    b"\n",
    b"\r\n\t",
    b"a b",
    b"\"quoted\", 'so'",
    b"\\",
    b"\\n",
    b"\\#5",
    b"\\\\#12",
    b"\\x41",
    b"\xff",
    b"\xe4\xbd",
    b"\xed\xa0\x80",
    b"\x00",
    b"\x1f\x85",
    "\u00a0\u3000\u2028\u200b".encode(),
    "日本\U0001f642".encode(),
    "\U000e0041".encode(),
    b"A",
    b"A",
    b"A",
    b"<unused 1>",
    b"#hash",
]
STATUS = [
    *[TokenStatus.SPECIAL, TokenStatus.UNUSED],
    *[TokenStatus.OK] * (len(ODD) - 5 - 2),
    *[TokenStatus.BYTE, TokenStatus.OK, TokenStatus.OK, TokenStatus.SPECIAL, TokenStatus.UNSEEN],
]
DIM = 6


def write_bank(directory: Path, vocab: Vocab, rows: np.ndarray, dtype: str = "F32", k: int = 4,
               fingerprint: str = "") -> Bank:  # fmt: skip
    """A bank of these unit or zero rows, as the pipeline would write it."""
    with BankWriter(directory) as writer:
        stored = writer.write_vectors(rows.shape, dtype, [rows]).float32(slice(None))
        usable = stored.any(axis=1)
        writer.write_tokens(vocab)
        table = exact_neighbors(stored.__getitem__, usable, k) if k else NeighborTable.empty(len(usable), 0)
        writer.write_neighbors(table)
        indexed = k and usable.any()
        if indexed:
            writer.write_index(build_index(stored.__getitem__, usable)[1])
        facts = {
            "costbank": "0.1.0", "created": "2026-11-21T00:00:00+00:00", "reproducible": True, "source": "test",
            "config": {"source": "test"}, "run": {}, "facts": {}, "inputs": [], "libraries": {}, "seconds": {},
            "tokenizer": {"kind": "test", "file": "test.model", "sha256": "0" * 64,
                          "fingerprint": fingerprint or vocab.fingerprint},
            "vectors": {"vocab": len(rows), "dim": rows.shape[1], "dtype": dtype}, "status": vocab.status_counts(),
            "neighbors": {"k": k, "exact": True, "recall": 1.0},
            "index": {"kind": "flat" if indexed else "none", "rows": int(usable.sum())},
        }  # fmt: skip
        return Bank(writer.publish(BankFacts.model_validate(facts), lambda manifest: write_card(manifest, [])))


@pytest.fixture(scope="session")
def odd_bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Tokens with every kind of byte that could break a file; ids 0, 2 and 30 have no vector."""
    rows = normalize(np.random.default_rng(3).normal(size=(len(ODD), DIM)).astype(np.float32))[0]
    rows[[0, 2, 30]] = 0
    vocab = Vocab.from_tokens(ODD, STATUS, [*range(len(ODD) - 2), -1, -1])
    return write_bank(tmp_path_factory.mktemp("odd") / "odd", vocab, rows)


@pytest.fixture(scope="session")
def bank_of(tmp_path_factory: pytest.TempPathFactory):
    """Makes a bank of random rows for a tokenizer file, with a chosen number of extra rows."""

    def make(tokenizer: Path, spare: int = 0, kind: str = "auto") -> Bank:
        own = load_tokenizer(tokenizer, kind).vocab
        vocab = own.padded(own.size + spare)
        rows = normalize(np.random.default_rng(4).normal(size=(vocab.size, 8)).astype(np.float32))[0]
        rows[own.size :] = 0
        return write_bank(tmp_path_factory.mktemp("made") / "made", vocab, rows, k=0, fingerprint=own.fingerprint)

    return make
