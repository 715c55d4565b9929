"""The output of `costbank health`, as text and as JSON."""

import json
import shutil
from pathlib import Path

import pytest

from costbank.bank import Bank

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "format1"


def test_the_report_names_tokens_and_ends_in_a_verdict(run, news_bank: Bank):
    result = run("health", "news")
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[0].split() == ["bank", f"news@{news_bank.id}"]
    assert lines[-1].startswith("verdict: ")
    for fact in (
        "word forms",
        "mean cosine",
        "raw norms",
        "isotropy",
        "hubness",
        "duplicates",
        "saturated",
        "under-trained",
    ):
        assert any(line.startswith(f"{fact}  ") for line in lines), fact
    unseen = next(i for i in range(news_bank.size) if news_bank.vocab.status_of(i).name == "UNSEEN")
    row = next(line for line in lines if line.split()[1:2] == ["unseen-tokens"])
    assert f"{unseen} {news_bank.vocab.display(unseen)}" in row
    assert any(line.startswith("unseen-tokens: ") for line in lines)
    assert any("--set word2vec.min_count=N" in line for line in lines)
    assert "measure rows" in result.err


def test_the_json_has_every_number(run, news_bank: Bank):
    result = run("health", "news", "--json", "--names", "4")
    document = json.loads(result.out)
    assert list(document) == [
        "bank", "id", "status", "vectors", "dim", "norms", "mean_cosine", "isotropy", "hubness", "duplicates",
        "near_duplicates", "saturation", "under_training", "word_forms", "built_in", "findings", "quality", "verdict",
    ]  # fmt: skip
    assert list(document["norms"]) == [
        "least", "percentile_1", "percentile_25", "median", "percentile_75", "percentile_99", "largest", "small_below",
        "large_above", "small", "large",
    ]  # fmt: skip
    assert list(document["isotropy"]) == ["score", "effective_dimension", "sampled"]
    assert list(document["hubness"]) == ["k", "exact", "skewness", "largest", "hubs", "hub_share", "antihubs"]
    assert list(document["duplicates"]) == list(document["near_duplicates"]) == ["groups", "tokens", "largest"]
    assert (document["bank"], document["id"], document["vectors"]) == ("news", news_bank.id, news_bank.usable.sum())
    assert document["status"] == news_bank.manifest.status
    assert document["under_training"] is None
    for finding in document["findings"]:
        assert list(finding) == ["code", "severity", "count", "share", "tokens", "groups", "meaning", "advice"]
        assert finding["severity"] in ("info", "warning", "serious")
        assert len(finding["tokens"]) <= 4
    unseen = next(finding for finding in document["findings"] if finding["code"] == "unseen-tokens")
    assert unseen["count"] == news_bank.manifest.status["unseen"]
    assert list(unseen["tokens"][0]) == ["id", "text", "value"]
    grave = [finding["code"] for finding in document["findings"] if finding["severity"] != "info"]
    assert list(document["word_forms"]) == [
        "kinds", "pairs", "tokens", "auc", "standard_error", "evidence", "ranges"
    ]  # fmt: skip
    assert [kind["kind"] for kind in document["word_forms"]["kinds"]] == ["space", "case", "ending"]
    assert document["quality"] in ("good", "care", "poor", "unknown")
    assert all(code in document["verdict"] for code in grave)


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
def test_a_bank_of_format_1_without_raw_rows(run, name: str):
    result = run("health", name, "--store", GOLDEN)
    assert result.status == 0
    assert "raw norms        unknown" in result.out
    assert "2 \\x00 = 205 \\xcb" in result.out
    document = json.loads(run("health", name, "--store", GOLDEN, "--json").out)
    assert document["norms"] is None
    duplicates = next(finding for finding in document["findings"] if finding["code"] == "duplicates")
    assert duplicates["tokens"] == []
    assert list(duplicates["groups"][0]) == ["size", "tokens"]
    assert len(duplicates["groups"]) == 10


def test_a_long_group_says_how_many_it_leaves_out(run):
    assert " = 39 % = 3 more" in run("health", "f32", "--store", GOLDEN, "--names", "2").out


def test_a_bank_without_a_table(run, news: Path, news_model: Path, tmp_path: Path):
    settings = ["word2vec.dim=8", "word2vec.epochs=1", "neighbors.k=0"]
    assert run(
        "build", "--source", "word2vec", "--corpus", news, "--tokenizer", news_model, "--name", "bare",
        "--store", tmp_path / "store", "--cache", tmp_path / "cache", *(f"--set={each}" for each in settings),
    ).status == 0  # fmt: skip
    result = run("health", "bare", "--store", tmp_path / "store")
    assert result.status == 0
    assert "hubness          unknown" in result.out
    assert "no-neighbor-table: The bank has no neighbor table (k = 0)" in result.out


def test_a_damaged_bank_is_an_error_as_elsewhere(run, news_bank: Bank, tmp_path: Path):
    shutil.copytree(news_bank.path.parent, tmp_path / "news")
    vectors = tmp_path / "news" / news_bank.id / "vectors.safetensors"
    vectors.write_bytes(vectors.read_bytes()[:-4])
    result = run("health", "news", "--store", tmp_path)
    assert (result.status, result.out) == (4, "")
    assert result.err.splitlines()[0].startswith("error: ")
    assert "vectors.safetensors has" in result.err
    assert run("health", "missing").status == 3
