"""`costbank eval --text`: the score of neighbors in held-out text, as text and as JSON, and its errors."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from costbank.analysis.held_out import LEAST_TOKENS, encode_text, score_text
from costbank.analysis.substitution import neighbor_targets, substitution
from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.progress import QuietProgress
from costbank.tokenizers import load_tokenizer
from tests.unit.recorded_progress import RecordedProgress
from tests.unit.small_bank import small_bank


@pytest.fixture
def held_out(news: Path, tmp_path: Path) -> Path:
    """The first lines of the news, with a blank line and line ends of Windows."""
    path = tmp_path / "held out.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(news.read_bytes().splitlines()[:40]) + b"\r\n\r\nend\r\n")
    return path


def test_the_printed_score_is_that_of_the_library(run, news_bank: Bank, news_model: Path, held_out: Path):
    arguments = ("eval", "news", "--text", held_out, "--tokenizer", news_model)
    result = run(*arguments)
    expected = score_text(news_bank, held_out, news_model, 10)
    lines = result.out.splitlines()
    share = expected.softened / expected.tokens
    assert lines == [
        f"text             {held_out}: {expected.tokens:,} tokens, {share:.1%} of them with neighbors",
        f"substitution@10  {expected.score:.4f} nats per token; 0 is chance "
        f"({expected.left:.4f} from the token before, {expected.right:.4f} from the one after)",
    ]
    assert expected.score > 0
    assert "encode text" in result.err
    assert "neighbors in their contexts" in result.err
    document = json.loads(run(*arguments, "-k", "4", "--json").out)
    assert document["tests"] == []
    of_four = asdict(score_text(news_bank, held_out, news_model, 4))
    assert document["substitution"] == {"text": str(held_out), "k": 4, **of_four}


def test_lines_are_texts_of_their_own(news_bank: Bank, news_model: Path, held_out: Path):
    lines = held_out.read_text("utf-8-sig").splitlines()
    encoded = [load_tokenizer(news_model).encode([line])[0] for line in lines]
    ends = np.cumsum([len(ids) for ids in encoded])
    expected = substitution(neighbor_targets(news_bank, 10), np.concatenate(encoded), ends)
    assert score_text(news_bank, held_out, news_model, 10) == expected


def test_words_and_text_are_tested_together(run, held_out: Path, news_model: Path, tmp_path: Path):
    path = tmp_path / "pairs.tsv"
    path.write_text("police\tofficers\t9\nIndia\tPakistan\t8\npolice\tcricket\t1\n")
    arguments = ("eval", "news", "--text", held_out, "--tokenizer", news_model, "--words", path)
    lines = run(*arguments).out.splitlines()
    assert [line.split()[:1] for line in lines] == [["text"], ["substitution@10"], [], ["test"], [str(path)]]
    document = json.loads(run(*arguments, "--json").out)
    assert document["substitution"]["score"] > 0
    assert [test["measure"] for test in document["tests"]] == ["spearman"]
    assert json.loads(run("eval", "news", "--words", path, "--json").out)["substitution"] is None


def test_a_long_text_is_cut_with_a_note(news_bank: Bank, news_model: Path, held_out: Path):
    progress, tokenizer = RecordedProgress(), load_tokenizer(news_model)
    whole = encode_text(tokenizer, held_out, QuietProgress())
    assert whole.is_whole
    assert (whole.ends[-1], len(whole.ends)) == (len(whole.tokens), 43)
    cut = encode_text(tokenizer, held_out, QuietProgress(), 1_234)
    assert not cut.is_whole
    assert cut.tokens.tolist() == whole.tokens[:1_234].tolist()
    assert cut.ends.tolist() == np.minimum(whole.ends, 1_234).tolist()
    assert encode_text(tokenizer, held_out, QuietProgress(), len(whole.tokens)).is_whole
    assert score_text(news_bank, held_out, news_model, 5, progress, 1_234).tokens == 1_234
    assert progress.notes == [f"{held_out} is longer than 1,234 tokens; the rest is ignored"]
    assert progress.steps == ["encode text", "neighbors in their contexts"]


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (None, 3, "does not exist"),
        (b"", 5, "is empty"),
        (b"a short text\n", 5, f"but {LEAST_TOKENS:,} are needed"),
        (b"caf\xe9 " * 1_000, 5, "at offset 3"),
    ],
)
def test_an_unusable_text_is_an_error(run, tmp_path: Path, news_model: Path, content, status: int, message: str):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    result = run("eval", "news", "--text", path, "--tokenizer", news_model)
    assert (result.status, result.out) == (status, "")
    assert message in result.err
    assert "neighbors in their contexts" not in result.err


@pytest.mark.parametrize("option", [("-k", "5"), ("--tokenizer", "my.model")])
def test_options_of_texts_need_a_text(run, option: tuple[str, str]):
    result = run("eval", "news", *option)
    assert result.status == 2
    assert f"{option[0]} belongs to --text" in result.err


def test_the_tokenizer_must_be_the_banks(run, held_out: Path, news_model: Path, tmp_path: Path):
    without = run("eval", "news", "--text", held_out)
    assert without.status == 2
    assert "news does not contain its tokenizer" in without.err
    assert "--tokenizer FILE: news.model (sentencepiece)" in without.err
    foreign = small_bank(tmp_path, {f"t{i}": row for i, row in enumerate(np.eye(4))})
    other = run("eval", foreign.path, "--text", held_out, "--tokenizer", news_model, "-k", "2")
    assert other.status == 5
    assert f"{news_model} is not the tokenizer of this bank" in other.err
    missing = run("eval", "news", "--text", held_out, "--tokenizer", tmp_path / "missing.model")
    assert missing.status == 3
    wide = run("eval", "news", "--text", held_out, "--tokenizer", news_model, "-k", "1000")
    assert wide.status == 2
    assert "error: k is 1000, but the neighbor table of news has" in wide.err
    alone = run("eval", "news", "--tokenizer", news_model)
    assert alone.status == 2
    assert "--tokenizer belongs to --text" in alone.err
    for result in (without, other, missing, wide, alone):
        assert result.out == ""
        assert "encode text" not in result.err


def test_a_library_for_words_is_named_before_the_text_is_read(
    run, held_out: Path, news_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "pairs.tsv"
    path.write_text("police\tofficers\t9\n")
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    result = run("eval", "news", "--text", held_out, "--tokenizer", news_model, "--words", path)
    assert (result.status, result.out) == (2, "")
    assert "encode text" not in result.err
    assert run("eval", "news", "--text", held_out, "--tokenizer", news_model).status == 0


def test_a_bank_without_a_neighbor_table_is_refused(tmp_path: Path, held_out: Path, news_model: Path):
    bank = small_bank(tmp_path, {f"t{i}": row for i, row in enumerate(np.eye(4))}, k=0)
    with pytest.raises(UsageError, match="has 0 columns") as caught:
        score_text(bank, held_out, news_model, 10)
    assert caught.value.hint == "build the bank with a larger --set neighbors.k=N"
