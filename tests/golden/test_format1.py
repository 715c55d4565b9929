"""Banks of format 1 that were written once: every version reads them, and today's writer makes the same bytes."""

from pathlib import Path

import numpy as np
import pytest

from costbank.bank import Bank, Store, verify_bank
from tests.golden.make import TOKENS, make

GOLDEN = Store(Path(__file__).parents[2] / "data" / "golden" / "format1")
IDS = {"f32": "81ebd4ae078b6b30", "f16": "f883902e6a730e1b", "bf16": "9767a9eb70ffab69"}


@pytest.mark.parametrize("name", IDS)
def test_a_golden_bank_is_read(name: str):
    bank = Bank(GOLDEN.resolve(name))
    assert bank.id == IDS[name]
    assert all(check.ok for check in verify_bank(bank.path))
    assert [bank.vocab.token(i) for i in range(bank.size)] == TOKENS
    king, queen = bank.vocab.find("▁king"), bank.vocab.find("queen")
    assert (king, queen) == (258, 259)
    assert bank.cost(king, queen) == pytest.approx(0.0484, abs=0.003)
    assert {n.id for n in bank.nearest(king, 3)} == {93, 3, 220}
    assert bank.search(bank.vectors(np.array([king])), 1)[0][0].cost == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("name", IDS)
def test_the_writer_of_today_makes_the_same_bank(name: str, tmp_path: Path):
    bank = make(tmp_path, name.upper())
    assert bank.name == IDS[name]
    for path in GOLDEN.resolve(name).iterdir():
        if path.name not in ("index.faiss", "manifest.json"):  # another version of FAISS may serialize differently
            assert (bank / path.name).read_bytes() == path.read_bytes(), path.name
