"""The output of `costbank eval`, as text and as JSON."""

import json
from pathlib import Path

import pytest

from costbank.analysis.evaluation import analogies, word_similarity
from costbank.analysis.wordlists import english_judgments, english_questions
from costbank.bank import Bank


def test_english_scores_are_those_of_the_library(run, news_bank: Bank):
    result = run("eval", "news", "--json")
    document = json.loads(result.out)
    assert (document["bank"], document["id"]) == ("news", news_bank.id)
    assert [(test["test"], test["measure"]) for test in document["tests"]] == [
        ("WordSim-353", "spearman"), ("SimLex-999", "spearman"), ("analogies", "accuracy")
    ]  # fmt: skip
    for column, with_pieces in (("one_token", False), ("with_pieces", True)):
        for test, judgments in zip(document["tests"], english_judgments().values(), strict=False):
            expected = word_similarity(news_bank, judgments, with_pieces)
            assert test[column] == {"value": expected.rho, "used": expected.pairs, "given": expected.pairs_given}
    answered = analogies(news_bank, english_questions())
    assert document["tests"][2]["one_token"] == {
        "value": answered.accuracy, "used": answered.questions, "given": 19_544
    }  # fmt: skip
    assert "answer analogies" in result.err


def test_own_files_replace_the_english_lists(run, news_bank: Bank, tmp_path: Path):
    (tmp_path / "pairs.tsv").write_text(
        "police\tofficers\t9\nIndia\tPakistan\t8\npolice\tcricket\t1\nthe\tzzyzzx日\t2\n"
    )
    (tmp_path / "groups.tsv").write_text("zzyzzx日\t日zzyzzx\nIndia\tPakistan\n")
    files = ["--words", tmp_path / "pairs.tsv", "--groups", tmp_path / "groups.tsv"]
    result = run("eval", "news", *files)
    lines = result.out.splitlines()
    assert lines[0].split() == ["test", "measure", "one", "token", "used", "with", "pieces", "used"]
    assert [line.split()[0] for line in lines[1:]] == [str(path) for path in (files[1], files[3], files[3])]
    assert "3 of 4" in lines[1]
    assert "2 of 4" in lines[2]
    assert "precision" in lines[2]
    assert "AUC" in lines[3]
    documents = json.loads(run("eval", "news", *files, "--json").out)["tests"]
    assert f"{documents[0]['one_token']['value']:.4f}" in lines[1]
    assert [test["measure"] for test in documents] == ["spearman", "precision", "auc"]


def test_too_few_words_are_a_dash_and_null(run, tmp_path: Path):
    path = tmp_path / "pairs.tsv"
    path.write_text("日\t本\t9\n")
    result = run("eval", "news", "--words", path)
    assert result.out.splitlines()[1].count("–") == 2
    assert "note: a dash means" in result.err
    assert json.loads(run("eval", "news", "--words", path, "--json").out)["tests"][0]["one_token"]["value"] is None


def test_a_bad_line_is_an_error_before_any_test(run, tmp_path: Path):
    path = tmp_path / "pairs.tsv"
    path.write_text("car\tauto\t9\nword one\n")
    result = run("eval", "news", "--words", path)
    assert (result.status, result.out) == (5, "")
    assert f"error: {path} line 2 is not two words and a number separated by tabs: 'word one'" in result.err


def test_without_gensim_only_own_files_are_tested(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("costbank.analysis.wordlists.find_spec", lambda _: None)
    result = run("eval", "news")
    assert (result.status, result.out) == (2, "")
    assert "gensim" in result.err
    path = tmp_path / "pairs.tsv"
    path.write_text("police\tofficers\t9\nIndia\tPakistan\t8\npolice\tcricket\t1\n")
    assert run("eval", "news", "--words", path).status == 0
