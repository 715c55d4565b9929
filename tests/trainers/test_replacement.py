"""Input tokens are replaced with a probability, by neighbors or at random; labels stay."""

import numpy as np
import pytest
import torch

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.trainers.replacement import TokenReplacement
from costbank.vocab import TokenStatus


@pytest.fixture
def ids(news_bank: Bank) -> torch.Tensor:
    usual = np.flatnonzero(news_bank.vocab.status == TokenStatus.OK)
    return torch.from_numpy(np.random.default_rng(0).choice(usual, (40, 50)))


@pytest.mark.parametrize("by", ["neighbors", "random", "unigram"])
def test_a_share_of_the_tokens_is_replaced(news_bank: Bank, ids: torch.Tensor, by):
    replaced = TokenReplacement(news_bank, 0.15, by=by, seed=3).replace(ids)
    changed = replaced != ids
    # 2,000 tokens: a deviation of 0.008. A random token may be the same one.
    assert float(changed.float().mean()) == pytest.approx(0.15, abs=0.04)
    assert torch.equal(replaced, TokenReplacement(news_bank, 0.15, by=by, seed=3).replace(ids))
    assert not torch.equal(replaced, TokenReplacement(news_bank, 0.15, by=by, seed=4).replace(ids))
    table = torch.from_numpy(news_bank.neighbors.ids[:, :8].astype(np.int64))
    is_neighbor = (table[ids[changed]] == replaced[changed][:, None]).any(dim=1)
    assert bool(is_neighbor.all()) == (by == "neighbors")


def test_each_of_the_nearest_is_as_likely(news_bank: Bank):
    token = int(np.flatnonzero(news_bank.vocab.status == TokenStatus.OK)[600])
    drawn = TokenReplacement(news_bank, 1.0, k=4).replace(torch.full((4_000,), token))
    near = torch.from_numpy(news_bank.neighbors.ids[token, :4].astype(np.int64))
    assert [float((drawn == i).float().mean()) for i in near] == pytest.approx([0.25] * 4, abs=0.04)


def test_frequent_tokens_are_drawn_by_their_count(news_bank: Bank, ids: torch.Tensor):
    counts = torch.tensor(news_bank.vocab.counts).double()
    means = {}
    for by in ("random", "unigram"):
        drawn = TokenReplacement(news_bank, 1.0, by=by).replace(ids)
        means[by] = float(counts[drawn].mean())
    assert means["unigram"] > 5 * means["random"]


def test_special_tokens_padding_and_ids_beyond_the_bank_stay(news_bank: Bank, ids: torch.Tensor):
    special = int(np.flatnonzero(news_bank.vocab.status == TokenStatus.SPECIAL)[0])
    ids = ids.clone()
    ids[:, 0], ids[:, 1], mask = special, news_bank.size + 3, torch.ones_like(ids)
    mask[:, -5:] = 0
    replaced = TokenReplacement(news_bank, 1.0).replace(ids, mask)
    assert torch.equal(replaced[:, :2], ids[:, :2])
    assert torch.equal(replaced[:, -5:], ids[:, -5:])
    assert (replaced[:, 2:-5] != ids[:, 2:-5]).all()


def test_it_is_a_collator_of_a_trainer(news_bank: Bank, ids: torch.Tensor):
    def collate(examples: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        batch = torch.stack(examples)
        return {"input_ids": batch, "labels": batch.clone(), "attention_mask": torch.ones_like(batch)}

    batch = TokenReplacement(news_bank, 0.5, collator=collate)(list(ids))
    assert torch.equal(batch["labels"], ids)
    assert (batch["input_ids"] != ids).float().mean() > 0.3
    assert set(batch) == {"input_ids", "labels", "attention_mask"}
    with pytest.raises(UsageError, match="no collator"):
        TokenReplacement(news_bank, 0.5)(list(ids))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.5}, "share is 1.5"),
        ({"share": 0.1, "by": "nearest"}, "by is 'nearest'"),
        ({"share": 0.1, "k": 0}, "k is 0"),
        ({"share": 0.1, "k": 5_000}, "k is 5000"),
    ],
)
def test_arguments_out_of_range_are_refused(news_bank: Bank, arguments: dict, message: str):
    with pytest.raises(UsageError, match=message):
        TokenReplacement(news_bank, **arguments)
    with pytest.raises(UsageError, match="needs a bank"):
        TokenReplacement(1_000, 0.1)
    with pytest.raises(UsageError, match="needs the counts"):
        TokenReplacement(1_000, 0.1, by="unigram")
