"""`costbank walk` follows typed steps, and `costbank nearest` answers for several tokens and draws their costs."""

import io
import json
from dataclasses import asdict

import pytest
from costbank_cli.commands.nearest import cost_bars

from costbank.bank import Bank


@pytest.fixture
def walk(run, monkeypatch: pytest.MonkeyPatch):
    def call(steps: str, *arguments: str):
        monkeypatch.setattr("sys.stdin", io.StringIO(steps))
        return run("walk", "news", "▁the", "-k", "5", *arguments)

    return call


def _ways(out: str) -> list[str]:
    return [line for line in out.splitlines() if line and not line.startswith(" ") and not line[0].isdigit()]


def test_a_walk_follows_numbers_and_tokens_and_goes_back(walk, news_bank: Bank):
    vocab = news_bank.vocab
    the, of = vocab.find("▁the"), vocab.find("▁of")
    second = news_bank.nearest(the, 5)[1]
    third = news_bank.nearest(second.id, 5)[0]
    result = walk("2\n1\nb\n▁of\n")
    assert result.status == 0
    way = f"▁the → {second.text}"
    assert _ways(result.out) == ["▁the", way, f"{way} → {third.text}", way, f"{way} → ▁of"]
    lines = result.out.splitlines()
    for token, start in ((the, 2), (of, len(lines) - 5)):
        shown = [(line.split()[1], line.split()[-1]) for line in lines[start : start + 5]]
        assert shown == [(f"{n.cost:.4f}", n.text) for n in news_bank.nearest(token, 5)]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("9", "there is no line 9; id:9 is the token"), ("0", "no line 0"), ("zzyzzx", "no token matches 'zzyzzx'"),
        ("b", "where the walk began"), ("id:99999", "outside the vocabulary"),
    ],
)  # fmt: skip
def test_a_step_that_is_not_understood_is_told_and_changes_nothing(walk, step: str, told: str):
    result = walk(f"{step}\n")
    assert result.status == 0
    assert told in result.err
    assert _ways(result.out) == ["▁the"]


@pytest.mark.parametrize("end", ["q\n1\n", "\n1\n", ""])
def test_a_walk_ends_at_q_at_an_empty_line_and_at_the_end_of_the_input(walk, end: str):
    result = walk("1\n" + end)
    assert (result.status, len(_ways(result.out))) == (0, 2)


def test_a_walk_over_a_token_without_a_vector_says_so(walk):
    result = walk("<s>\n1\n")
    assert "no vector: its cost to every token is 1" in result.err
    assert "there is no line 1" in result.err


def test_a_walk_prints_its_whole_way_as_json(walk, news_bank: Bank):
    document = json.loads(walk("2\n▁of\n", "--json").out)
    way = [news_bank.vocab.find("▁the"), news_bank.nearest("▁the", 5)[1].id, news_bank.vocab.find("▁of")]
    assert [token["id"] for token in document["tokens"]] == way
    assert document["costs"] == [news_bank.cost(way[0], way[1]), news_bank.cost(way[1], way[2])]


def test_a_walk_from_nowhere_is_an_error(run):
    assert run("walk", "news", "zzyzzx").status == 3
    assert run("walk", "news", "▁the", "-k", "2000").status == 2


def test_nearest_answers_for_several_tokens(run, news_bank: Bank):
    result = run("nearest", "news", "▁the", "▁of", "-k", "3")
    first, second = result.out.split("\n\n")
    assert first == run("nearest", "news", "▁the", "-k", "3").out.rstrip("\n")
    assert second == run("nearest", "news", "▁of", "-k", "3").out
    document = json.loads(run("nearest", "news", "▁the", "▁of", "-k", "3", "--json").out)
    assert document["id"] == news_bank.id
    for token, answer in zip(("▁the", "▁of"), document["results"], strict=True):
        assert answer["token"]["text"] == token
        assert answer["neighbors"] == [asdict(n) for n in news_bank.nearest(token, 3)]
    assert run("nearest", "news", "▁the", "zzyzzx").status == 3
    assert run("nearest", "news").status == 2


def test_nearest_draws_costs(run, news_bank: Bank):
    lines = run("nearest", "news", "▁the", "-k", "4", "--plot").out.splitlines()[1:]
    neighbors = news_bank.nearest("▁the", 4)
    assert [line.split()[1] for line in lines] == cost_bars([n.cost for n in neighbors])
    assert [line.split()[2:] for line in lines] == [[str(n.id), n.text] for n in neighbors]


def test_a_bar_is_as_long_as_its_cost():
    assert cost_bars([0.0, 0.5, 1.0, 1.7]) == ["", "█" * 15, "█" * 30, "█" * 30]
    for i, bar in enumerate(cost_bars([i / 240 for i in range(241)])):
        assert sum(" ▏▎▍▌▋▊▉█".index(part) for part in bar) == i
