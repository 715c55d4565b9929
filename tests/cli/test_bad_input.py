"""User mistakes: each gives an error line and a hint line, the right exit status, and no leftover files."""

from pathlib import Path

import pytest

BUILD = ["build", "--source", "word2vec", "--name", "x", "--corpus", "{corpus}", "--tokenizer", "{model}"]

EXPORT = ["export", "news", "--out", "{directory}/o", "--format"]

CASES = {
    "no such command": (["frobnicate"], 2, "unknown command"),
    "no such option": (["list", "--frob"], 2, "--frob"),
    "no bank": (["nearest", "missing", "the"], 3, "there is no bank missing"),
    "a malformed reference": (["show", "No Bank"], 2, "is not a bank name"),
    "an unknown token": (["nearest", "news", "zzyzzx"], 3, "no token matches"),
    "an id outside the vocabulary": (["nearest", "news", "id:2000"], 3, "outside the vocabulary"),
    "k larger than the vocabulary": (["nearest", "news", "▁the", "-k", "2000"], 2, "1,999 other tokens"),
    "k of zero": (["nearest", "news", "▁the", "-k", "0"], 2, "k is 0"),
    "one token has no cost": (["cost", "news", "▁the"], 2, "two tokens"),
    "no source": (["build"], 2, "setting source is needed"),
    "an unknown source": (["build", "--source", "magic", "--tokenizer", "{model}"], 2, "source"),
    "no corpus": (["build", "--source", "word2vec", "--tokenizer", "{model}"], 2, "needs a corpus"),
    "no model": (["build", "--source", "lm-head"], 2, "needs a model"),
    "no such model": (["build", "--source", "lm-head", "--model", "missing"], 3, "missing does not exist"),
    "a model folder without weights": (["build", "--source", "lm-head", "--model", "{directory}"], 3, "no weights in"),
    "spelling without a tokenizer": (["build", "--source", "spelling"], 2, "setting tokenizer is missing"),
    "no vectors": (["build", "--source", "vectors", "--tokenizer", "{model}"], 2, "needs a file of vectors"),
    "vectors that are text": (
        ["build", "--source", "vectors", "--vectors", "{corpus}", "--tokenizer", "{model}"],
        5,
        "not a file in word2vec's",
    ),
    "no donor": (["build", "--source", "transfer", "--tokenizer", "{model}"], 2, "needs a donor bank"),
    "no such donor": (["build", "--source", "transfer", "--tokenizer", "{model}", "--donor", "nobody"], 3, "nobody"),
    "an unknown transform": ([*BUILD, "--set", 'transforms=["twist"]'], 2, "twist"),
    "no such config": ([*BUILD, "--config", "missing.toml"], 3, "missing.toml"),
    "no such setting": ([*BUILD, "--set", "word2vec.epoch=3"], 2, "no setting word2vec.epoch"),
    "neighbors.k too large": ([*BUILD, "--set", "neighbors.k=2000"], 2, "1,999 other tokens"),
    "an option of another source": (
        ["build", "--source", "spelling", "--tokenizer", "{model}", "--donor", "news"],
        2,
        "transfer.donor is a setting of the source transfer, not of spelling",
    ),
    "an option without its file": (
        ["build", "--source", "word2vec", "--corpus", "--name", "x"],
        2,
        "needs at least one file",
    ),
    "a model that lacks its shard": (["build", "--source", "lm-head", "--model", "{model}"], 5, "news.model"),
    "a missing corpus": ([*BUILD, "--corpus", "missing.txt"], 3, "missing.txt does not exist"),
    "an unknown engine": ([*BUILD, "--engine", "spark"], 2, "local or ray"),
    "a Ray cluster that is not there": (
        [*BUILD, "--engine", "ray", "--ray-address", "127.0.0.1:9"],
        2,
        "no Ray cluster answers",
    ),
    "an engine for what has no corpus": (
        ["build", "--source", "spelling", "--tokenizer", "{model}", "--engine", "ray"],
        2,
        "engine.kind is a setting of the sources word2vec and cooccurrence, not of spelling",
    ),
    "too little memory": ([*BUILD, "--memory", "1MB"], 2, "engine.memory"),
    "sampling by no power": ([*BUILD, "--sampling", "0"], 2, "corpus.sampling"),
    "bad records neither refused nor skipped": ([*BUILD, "--on-error", "ignore"], 2, "corpus.on_error"),
    "a pattern that matches nothing": ([*BUILD, "--corpus", "nothing/*.txt"], 3, "no file matches"),
    "a URL of no kind": ([*BUILD, "--corpus", "gopher://x/y"], 2, "gopher"),
    "a folder without a corpus": ([*BUILD, "--corpus", "{directory}"], 3, "no file matches"),
    "an empty corpus": ([*BUILD, "--corpus", "{empty}"], 5, "is empty"),
    "a corpus of blank lines": ([*BUILD[:5], "--corpus", "{blank}", *BUILD[7:]], 5, "has no text"),
    "a binary corpus": ([*BUILD, "--corpus", "{model}"], 5, "is not"),
    "a corpus of one token": ([*BUILD[:5], "--corpus", "{one}", *BUILD[7:]], 5, "at least two such ids"),
    "no such tokenizer": ([*BUILD[:7], "--tokenizer", "missing.model"], 3, "missing.model"),
    "a file that is not a tokenizer": ([*BUILD[:7], "--tokenizer", "{corpus}"], 5, "not a SentencePiece model"),
    "a name with a slash": ([*BUILD, "--name", "../x"], 2, "lower-case"),
    "training on a missing file": (["tokenizer", "train", "missing.txt", "--out", "{directory}/o.model"], 3, "missing"),
    "training on a binary file": (["tokenizer", "train", "{model}", "--out", "{directory}/o.model"], 5, "not text"),
    "training on too little": (["tokenizer", "train", "{one}", "--out", "{directory}/o.model"], 5, "too small"),
    "exporting to no format": (["export", "news", "--out", "{directory}/o"], 2, "--format"),
    "exporting to an unknown format": ([*EXPORT, "hdf5"], 2, "no format 'hdf5'"),
    "exporting no bank": (["export", "missing", *EXPORT[2:], "npy"], 3, "there is no bank missing"),
    "exporting over a file": (["export", "news", "--format", "npy", "--out", "{empty}"], 2, "already exists"),
    "exporting without the tokenizer": ([*EXPORT, "model2vec"], 2, "a bank contains only a vocabulary"),
    "exporting with a missing tokenizer": ([*EXPORT, "model2vec", "--tokenizer", "missing.model"], 3, "missing.model"),
    "exporting with another tokenizer": (
        [*EXPORT, "sentence-transformers", "--tokenizer", "{labels}"],
        5,
        "not the tokenizer of this bank",
    ),
    "exporting with what is not a tokenizer": (
        [*EXPORT, "model2vec", "--tokenizer", "{corpus}"],
        5,
        "not a SentencePiece",
    ),
    "exporting with a tokenizer for nothing": ([*EXPORT, "npy", "--tokenizer", "{model}"], 2, "contains no tokenizer"),
    "exporting rows as F16": ([*EXPORT, "npy", "--dtype", "F16"], 2, "always written as F32"),
    "exporting costs as text": ([*EXPORT, "costs-npy", "--dtype", "text"], 2, "--dtype"),
    "exporting under a file": (["export", "news", "--format", "npy", "--out", "{empty}/o.npy"], 5, "cannot write"),
    "evaluating no bank": (["eval", "missing"], 3, "there is no bank missing"),
    "a missing list of words": (["eval", "news", "--words", "missing.tsv"], 3, "missing.tsv does not exist"),
    "text as a list of words": (["eval", "news", "--words", "{corpus}"], 5, "line 1 is not two words and a number"),
    "a binary list of words": (["eval", "news", "--words", "{model}"], 5, "is not"),
    "a group of one word": (["eval", "news", "--groups", "{one}"], 5, "line 1 is not two or more different words"),
    "verifying nothing": (["verify", "{directory}/"], 3, "no bank at"),
    "serving on an impossible port": (["serve", "--port", "70000"], 2, "70000"),
}


@pytest.mark.parametrize(("arguments", "status", "message"), CASES.values(), ids=CASES)
def test_a_mistake_is_explained(
    run, news: Path, news_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], status: int, message: str,
):  # fmt: skip
    places = {"corpus": news, "model": news_model, "directory": tmp_path / "directory"}
    for name, content in {"empty": "", "blank": "\n\n", "one": "the\n", "labels": "cat\n"}.items():
        places[name] = tmp_path / f"{name}.txt"
        places[name].write_text(content)
    places["directory"].mkdir()
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "build":
        arguments = [*arguments, "--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache")]
    result = run(*[argument.format(**places) for argument in arguments])
    assert result.status == status, result
    assert result.out == ""
    error, hint = result.err.strip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "store" in path.parts]
    assert not list((tmp_path / "directory").iterdir())


def test_json_keeps_stdout_empty_on_an_error(run):
    result = run("nearest", "news", "zzyzzx", "--json")
    assert (result.status, result.out) == (3, "")


@pytest.mark.parametrize("command", [["list"], ["show", "news"], ["serve", "--port", "0"]])
def test_a_file_is_not_a_store(run, tmp_path: Path, command: list[str]):
    (tmp_path / "banks").write_text("x")
    result = run(*command, "--store", tmp_path / "banks")
    assert result.status == 2
    assert "banks is a file, not a store" in result.err
