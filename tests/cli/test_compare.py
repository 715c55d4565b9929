"""The output of `costbank compare`, as text and as JSON."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from costbank.analysis.comparison import compare_banks
from costbank.analysis.stability import neighbor_stability
from costbank.bank import Bank
from tests.unit.small_bank import small_bank


@pytest.fixture
def other(news_bank: Bank, tmp_path: Path, random: np.random.Generator) -> Bank:
    """A bank with half of the tokens of the news bank, in another order, and one that it does not have."""
    ids = random.permutation(np.flatnonzero(news_bank.usable & news_bank.vocab.ordinary))[:900]
    texts = {news_bank.vocab.token(i).decode("utf-8", "replace"): i for i in ids.tolist()}
    rows = {text: news_bank.vectors(slice(i, i + 1))[0] + 0.1 * random.standard_normal(24) for text, i in texts.items()}
    return small_bank(tmp_path, rows | {"zzyzzx": np.ones(24)})


def test_facts_and_the_most_different_tokens_are_printed(run, news_bank: Bank, other: Bank):
    result = run("compare", "news", other.path, "-k", "4", "--tokens", "3")
    expected = compare_banks(news_bank, other, 4, 3)
    lines = result.out.splitlines()
    assert lines[0].split() == ["banks", f"news@{news_bank.id},", f"bank@{other.id}"]
    assert f"different tokenizers, {expected.matched:,} tokens matched by bytes; {expected.common:,} with" in lines[1]
    assert lines[2] == f"overlap@4            {expected.overlap:.4f} (neighbors of all {expected.common:,} tokens)"
    assert lines[3].split()[-1] == f"{expected.rank_biased_overlap:.4f}"
    assert f"Pearson {expected.pearson:.4f}, Spearman {expected.spearman:.4f}" in lines[4]
    assert f"{expected.linear_cka:.4f}" in lines[5]
    bands = expected.by_count
    assert [line.split() for line in lines[8 : 8 + len(bands)]] == [
        [f"{b.least:,}", "to", f"{b.most:,}", f"{b.tokens:,}", f"{b.overlap:.4f}", f"{b.rank_biased_overlap:.4f}"]
        for b in bands
    ]
    assert len(lines) == 6 + 2 + len(bands) + 2 + 3
    for line, token in zip(lines[-3:], expected.most_different, strict=True):
        near = [n.text for neighbors in (token.first_neighbors, token.second_neighbors) for n in neighbors]
        assert line.split() == [f"{token.overlap:.4f}", token.text, *near]
    assert "linear CKA" in result.err


def test_the_json_has_every_value(run, news_bank: Bank, other: Bank):
    document = json.loads(run("compare", "news", other.path, "--tokens", "2", "--json").out)
    expected = asdict(compare_banks(news_bank, other, 10, 2))
    assert document == json.loads(json.dumps(expected))
    assert len(document["most_different"][0]["second_neighbors"]) == 10


def test_a_bank_agrees_with_itself(run, news_bank: Bank):
    result = run("compare", "news", f"news@{news_bank.id}")
    assert "one tokenizer" in result.out
    bands = len(compare_banks(news_bank, news_bank).by_count)
    assert bands > 1
    assert result.out.count("1.0000") == 5 + 2 * bands
    assert "nearest in" not in result.out


def test_more_banks_are_compared_in_pairs(run, news_bank: Bank, tmp_path: Path, random: np.random.Generator):
    tokens = [f"▁t{i}" for i in range(40)]
    rows = random.standard_normal((40, 4))
    banks = [small_bank(tmp_path / n, dict(zip(tokens, rows + random.standard_normal((40, 4)), strict=True)))
             for n in "abc"]  # fmt: skip
    result = run("compare", *(bank.path for bank in banks), "-k", "4", "--tokens", "2")
    expected = neighbor_stability(banks, 4, named=2)
    lines = result.out.splitlines()
    assert lines[0].split()[1:] == [f"bank@{banks[0].id},", f"bank@{banks[1].id},", f"bank@{banks[2].id}"]
    assert lines[1].endswith("one tokenizer; 40 with a vector in all banks")
    spreads = [f"{s.mean:.4f}, from {s.least:.4f} to {s.most:.4f}"
               for s in (expected.overlap, expected.rank_biased_overlap)]  # fmt: skip
    assert lines[2] == f"overlap@4            {spreads[0]} (3 pairs, neighbors of all 40 tokens)"
    assert lines[3] == f"rank-biased overlap  {spreads[1]}"
    assert [line.split() for line in lines[6:]] == [
        [f"{t.overlap:.4f}", "–", t.text, *(text for near in t.neighbors for text in near)]
        for t in expected.least_stable
    ]
    document = json.loads(run("compare", *(bank.path for bank in banks), "-k", "4", "--tokens", "2", "--json").out)
    assert document == json.loads(json.dumps(asdict(expected)))
    assert "count in the corpus" in run("compare", "news", "news", "news").out
    refused = run("compare", "news", "news", banks[0].path)
    assert (refused.status, refused.out) == (2, "")
    assert "error: news and bank have different tokenizers" in refused.err


def test_tokens_are_printed_on_one_line(run, tmp_path: Path, random: np.random.Generator):
    tokens = ["\x1b[2J", "\n", "日本", "é", "‮abc", "[bold]x", "y"]
    banks = [small_bank(tmp_path / n, dict(zip(tokens, random.standard_normal((7, 3)), strict=True))) for n in "ab"]
    result = run("compare", banks[0].path, banks[1].path, "-k", "2")
    assert len(result.out.splitlines()) == 6 + 2 + len(compare_banks(*banks, 2).most_different)
    assert result.out.replace("\n", "").isprintable()
    assert "\\x1b[2J" in result.out
    assert "[bold]x" in result.out


def test_mistakes_are_explained(run, news_bank: Bank, tmp_path: Path):
    foreign = small_bank(tmp_path, {"日": (1, 0), "本": (0, 1), "語": (1, 1)})
    result = run("compare", "news", foreign.path)
    assert (result.status, result.out) == (5, "")
    assert "error: news and bank have 0 tokens with a vector in common" in result.err
    assert run("compare", "news", "missing").status == 3
    assert (one := run("compare", "news")).status == 2
    assert "give two or more banks" in one.err
    assert "give a k from 1 to" in run("compare", "news", "news", "-k", "0").err


@pytest.mark.parametrize("library", ["faiss", "scipy.stats"])
def test_a_missing_library_is_named_before_any_work(run, monkeypatch: pytest.MonkeyPatch, library: str):
    monkeypatch.setitem(sys.modules, library, None)
    result = run("compare", "news", "news")
    assert (result.status, result.out) == (2, "")
    assert "nearest tokens" not in result.err
    assert library in result.err
    assert "costbank[build]" in result.err
