"""Input embeddings that start from a bank's vectors."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.trainers.initialization import initial_embedding


def _cosines(rows: torch.Tensor) -> torch.Tensor:
    unit = functional.normalize(rows.double(), dim=1)
    return unit @ unit.T


def test_rows_have_the_banks_cosines_and_the_size_of_random_rows(news_bank: Bank):
    usable = news_bank.vectors().any(axis=1)
    rows = initial_embedding(news_bank, news_bank.dim + 30, std=0.05)
    assert rows.shape == (news_bank.size, news_bank.dim + 30)
    assert float(rows[usable].std()) == pytest.approx(0.05, rel=0.02)
    own = torch.from_numpy(news_bank.vectors()[usable][:200].copy())
    assert torch.allclose(_cosines(rows[usable][:200]), _cosines(own), atol=1e-5)
    assert float(rows[~usable].std()) == pytest.approx(0.05, rel=0.2)
    assert torch.equal(rows, initial_embedding(news_bank, news_bank.dim + 30, std=0.05))
    assert not torch.equal(rows, initial_embedding(news_bank, news_bank.dim + 30, std=0.05, seed=1))


def test_a_narrower_model_gets_the_principal_axes(news_bank: Bank):
    usable = np.flatnonzero(news_bank.vectors().any(axis=1))[:300]
    narrow = initial_embedding(news_bank, news_bank.dim // 2)[usable]
    vectors = torch.from_numpy(news_bank.vectors().copy()).double()
    _, _, axes = torch.linalg.svd(vectors, full_matrices=False)
    expected = (vectors @ axes[: news_bank.dim // 2].T)[usable]
    assert torch.allclose(_cosines(narrow), _cosines(expected), atol=1e-4)


def test_ids_beyond_the_bank_get_random_rows(news_bank: Bank):
    rows = initial_embedding(news_bank, 64, vocab_size=news_bank.size + 50)
    assert float(rows[news_bank.size :].std()) == pytest.approx(0.02, rel=0.1)
    with pytest.raises(ShapeError, match="vocab_size is 10"):
        initial_embedding(news_bank, 64, vocab_size=10)
    for dim, std in ((0, 0.02), (64, 0.0)):
        with pytest.raises(UsageError, match=r"dim is \d+ and std is"):
            initial_embedding(news_bank, dim, std=std)
