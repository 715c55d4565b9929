"""Input embeddings that start from a bank's vectors."""

import numpy as np
import pytest
import torch
import transformers as tf
from torch.nn import functional

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.trainers.initialization import initial_embedding, start_from_bank
from tests.trainers.conftest import MODELS, SMALL


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
    assert not torch.allclose(narrow, initial_embedding(news_bank, news_bank.dim // 2, seed=1)[usable], atol=1e-3)
    assert torch.allclose(_cosines(narrow), _cosines(expected), atol=1e-4)


def test_ids_beyond_the_bank_get_random_rows(news_bank: Bank):
    rows = initial_embedding(news_bank, 64, vocab_size=news_bank.size + 50)
    assert float(rows[news_bank.size :].std()) == pytest.approx(0.02, rel=0.1)
    with pytest.raises(ShapeError, match="vocab_size is 10"):
        initial_embedding(news_bank, 64, vocab_size=10)
    for dim, std in ((0, 0.02), (64, 0.0)):
        with pytest.raises(UsageError, match=r"dim is \d+ and std is"):
            initial_embedding(news_bank, dim, std=std)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_starts_from_a_bank(bank: Bank, name: str):
    model = MODELS[name]()
    model.resize_token_embeddings(bank.size + 20)
    embedding, head = model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()
    before, head_before, usable = embedding.clone(), head.clone(), torch.from_numpy(bank.usable)
    start_from_bank(model, bank)
    rows = embedding[: bank.size]
    expected = initial_embedding(bank, embedding.shape[1], std=float(before[: bank.size][usable].std()))
    assert torch.equal(rows[usable], expected[usable])
    if (padding := model.get_input_embeddings().padding_idx) is not None:
        assert not usable[padding]
    assert 0 < usable.sum() < bank.size < len(embedding)
    assert torch.equal(rows[~usable], before[: bank.size][~usable])
    assert torch.equal(embedding[bank.size :], before[bank.size :])
    assert torch.equal(head, embedding if model.config.tie_word_embeddings else head_before)


def test_a_model_that_cannot_start_from_a_bank_stays_as_it_was(bank: Bank):
    small = tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL | {"vocab_size": bank.size - 1}))
    before = small.get_input_embeddings().weight.clone()
    with pytest.raises(
        ShapeError, match=r"the embedding has \d+ rows, and the bank has \d+ tokens\nhint: use the bank"
    ):
        start_from_bank(small, bank)
    assert torch.equal(small.get_input_embeddings().weight, before)
    with torch.device("meta"):
        without_rows = tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL))
    with pytest.raises(UsageError, match=r"not in this process's memory.*\nhint: call start_from_bank after"):
        start_from_bank(without_rows, bank)
    own = tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL))
    before = own.get_input_embeddings().weight.clone()
    with pytest.raises(UsageError, match="std is -1"):
        start_from_bank(own, bank, std=-1.0)
    assert torch.equal(own.get_input_embeddings().weight, before)


class Model(torch.nn.Module):
    """With an embedding, or without one."""

    def __init__(self, weight: torch.Tensor | None, padding: int | None = None) -> None:
        super().__init__()
        if weight is not None:
            self.tokens = torch.nn.Embedding(1, 1)
            self.tokens.padding_idx = padding
            self.tokens.weight = torch.nn.Parameter(weight, requires_grad=weight.is_floating_point())

    def get_input_embeddings(self) -> torch.nn.Module:
        if not hasattr(self, "tokens"):
            raise NotImplementedError  # as transformers does
        return self.tokens


@pytest.mark.parametrize(
    ("weight", "error"),
    [
        (None, r"Model does not say which part .*\nhint: copy the rows of initial_embedding"),
        (torch.empty(0), r"not in this process's memory.*\nhint: call start_from_bank after .* before it is sharded"),
        (
            torch.zeros(300, 16, dtype=torch.int8),
            r"quantized: its weight is int8 \[300, 16\]\nhint: .* before it is quantized",
        ),
        (torch.zeros(4_800), r"not in this process's memory, or only a part of them"),
        (torch.zeros(300, 16), r"do not vary\nhint: give their size"),
    ],
)
def test_a_weight_whose_rows_cannot_be_set_is_refused(bank: Bank, weight: torch.Tensor | None, error: str):
    assert bank.size == 300
    with pytest.raises(UsageError, match="Linear does not say which part"):
        start_from_bank(torch.nn.Linear(2, 2), bank)
    with pytest.raises(UsageError, match=error):
        start_from_bank(Model(weight), bank)
    if weight is not None and weight.shape == (300, 16) and weight.is_floating_point():
        model = Model(weight)
        start_from_bank(model, bank, std=0.1)
        assert model.tokens.weight.any()


def test_a_bank_without_vectors_is_refused(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    model = Model(torch.randn(bank.size, 16))
    monkeypatch.setitem(bank.__dict__, "usable", np.zeros(bank.size, bool))
    with pytest.raises(UsageError, match="no vector for a token of the model"):
        start_from_bank(model, bank)


def test_the_row_of_padding_stays(bank: Bank):
    padding = int(np.flatnonzero(bank.usable)[0])
    model = Model(torch.randn(bank.size, 16), padding)
    before = model.tokens.weight.detach().clone()
    start_from_bank(model, bank)
    changed = (model.tokens.weight != before).any(dim=1)
    usable = torch.from_numpy(bank.usable)
    assert torch.equal(changed.nonzero()[:, 0], usable.nonzero()[1:, 0])


def test_rows_keep_the_type_of_the_model(bank: Bank):
    model = tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL)).to(torch.bfloat16)
    start_from_bank(model, bank, std=0.5)
    rows = model.get_input_embeddings().weight.detach()[: bank.size][torch.from_numpy(bank.usable)]
    assert rows.dtype == torch.bfloat16
    assert float(rows.float().std()) == pytest.approx(0.5, rel=0.02)
