"""Shell completion: the completions of a line, and the libraries they import. `test_shells.py` tests real shells."""

import io
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest
from costbank_cli.choices import EXPORT_FORMATS, SOURCES
from costbank_cli.command_line import COMMANDS
from costbank_cli.shells import complete

from costbank.bank import Bank
from costbank.config import list_settings

COSTBANK = [sys.executable, "-m", "costbank_cli"]


def _request(store: Path, words: tuple[str, ...]) -> dict[str, str]:
    """The variables by which bash asks for the completions of the last word."""
    request = {"_COSTBANK_COMPLETE": "bash_complete", "COMP_CWORD": str(len(words)), "COSTBANK_STORE": str(store)}
    return request | {"COMP_WORDS": "\n".join(["costbank", *(word or "''" for word in words)])}


def _complete(store: Path, *words: str, command: list[str] = COSTBANK) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | _request(store, words)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _offered(store: Path, *words: str) -> list[str]:
    """The completions of the last word, from this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with (
        patch.dict(os.environ, _request(store, words)),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        complete()
    printed, told = (stream.buffer.getvalue().decode() for stream in (out, err))
    assert (ended.value.code, told) == (0, "")
    return printed.split()


def _plain(*values: str) -> list[str]:
    return [f"plain,{value}" for value in values]


@pytest.fixture(scope="module")
def store(news_bank: Bank) -> Path:
    return news_bank.path.parents[1]


def test_a_process_offers_the_same(store: Path):
    done = _complete(store, "show", "n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == _offered(store, "show", "n") == _plain("news")


def test_commands_and_options_are_offered(store: Path):
    assert _offered(store, "") == _plain(*COMMANDS)
    assert _offered(store, "se") == _plain("serve", "settings")
    assert "plain,--sampling" in _offered(store, "build", "--s")
    assert _offered(store, "tokenizer", "") == _plain("train")


@pytest.mark.parametrize(
    "command",
    ["show", "nearest", "cost", "health", "eval", "compare", "compare news", "verify", "export", "build --donor"],
)
def test_banks_are_offered(store: Path, news_bank: Bank, command: str):
    assert "plain,news" in _offered(store, *command.split(), "")
    assert _offered(store, *command.split(), "news@") == _plain(f"news@{news_bank.id}")
    assert _offered(store, *command.split(), "zz") == []
    assert _offered(store, *command.split(), "./n") == ["dir,./n"]


def test_commands_that_remove_banks_offer_banks_but_no_paths(store: Path, news_bank: Bank, tmp_path: Path):
    assert _offered(store, "rm", "") == _plain("news")
    assert _offered(store, "rm", "news", "news@") == _plain(f"news@{news_bank.id}")
    for command in ("prune", "rename"):
        assert _offered(store, command, "n") == _plain("news")
        assert _offered(store, command, "news@") == []
    assert [_offered(store, command, "./n") for command in ("rm", "prune", "rename")] == [[]] * 3
    assert _offered(store, "prune", "--store", str(tmp_path), "") == []


def test_banks_are_those_of_the_store_that_is_named(store: Path, news_bank: Bank, tmp_path: Path):
    for bank_id in ("0123456789abcdef", "fedcba9876543210"):
        shutil.copytree(news_bank.path, tmp_path / "twice" / bank_id)
    offered = _offered(store, "show", "--store", str(tmp_path), "")
    assert offered == _plain("twice", "twice@0123456789abcdef", "twice@fedcba9876543210")


def test_a_store_that_is_missing_or_damaged_offers_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("not a store")
    (tmp_path / "odd" / "a" / "latest").mkdir(parents=True)
    (tmp_path / "odd" / "b").write_text("")
    for name in ("missing", "file", "odd"):
        assert _offered(tmp_path / name, "show", "") == []


def test_sources_and_formats_are_offered(store: Path):
    assert _offered(store, "build", "--source", "") == _plain(*SOURCES)
    assert _offered(store, "settings", "ve") == _plain("vectors")
    assert _offered(store, "export", "news", "--format", "") == _plain(*EXPORT_FORMATS)
    assert _offered(store, "export", "news", "--dtype", "") == _plain("F32", "F16")
    assert _offered(store, "build", "--on-error", "s") == _plain("skip")


def test_settings_are_those_of_the_source(store: Path):
    every = _plain(*(f"{setting.path}=" for setting in list_settings()))
    assert _offered(store, "build", "--set", "") == every
    own = [f"{setting.path}=" for setting in list_settings("cooccurrence")]
    assert len(own) < len(every)
    assert _offered(store, "build", "--source", "cooccurrence", "--set", "") == _plain(*own)
    assert _offered(store, "build", "--source", "nonsense", "--set", "") == every
    assert _offered(store, "tokenizer", "train", "x", "--set", "corpus.d") == _plain("corpus.documents=")
    assert _offered(store, "tokenizer", "train", "x", "--set", "word2vec") == []


def test_the_values_of_a_setting_are_offered(store: Path):
    assert _offered(store, "build", "--set", "engine.kind=") == _plain("engine.kind=local", "engine.kind=ray")
    assert _offered(store, "build", "--set", "word2vec.hs=t") == _plain("word2vec.hs=true")
    assert _offered(store, "build", "--set", "transfer.donor=ne") == _plain("transfer.donor=news")
    assert _offered(store, "build", "--set", "corpus.files=te") == ["file,corpus.files=te"]
    for path in ("word2vec.epochs", "no.setting"):
        assert _offered(store, "build", "--set", f"{path}=") == []


@pytest.mark.parametrize(
    "words",
    ["build --corpus", "build --corpus a.txt", "build --corpus a.txt b.txt", "build --model", "build --config",
     "export news --out", "tokenizer train", "tokenizer train a.txt --out"],
)  # fmt: skip
def test_files_are_offered_where_files_are_taken(store: Path, words: str):
    assert _offered(store, *words.split(), "x") == ["file,x"]


def test_after_the_files_of_a_corpus_come_options(store: Path):
    assert _offered(store, "build", "--corpus", "a.txt", "b.txt", "--so") == _plain("--source")


@pytest.mark.parametrize("words", [["frobnicate", ""], ["build", "--frob", ""], ["show", "a", "b", "c"], ["-x", ""]])
def test_a_line_with_a_mistake_prints_no_error(store: Path, words: list[str]):
    assert _complete(store, *words).stderr == ""


def test_a_failure_in_a_completer_prints_nothing(store: Path):
    broken = "import costbank_cli.completion as c; c._items = None; from costbank_cli.main import main; main()"
    done = _complete(store, "show", "", command=[sys.executable, "-c", broken])
    assert (done.stdout, done.stderr) == ("", "")


def test_completion_imports_no_heavy_library(store: Path):
    heavy = ("torch", "faiss", "fastapi", "gensim", "sentencepiece", "rich", "scipy", "numpy", "jaxtyping", "pydantic")
    listed = f"import atexit, sys; atexit.register(lambda: print('loaded:', *sorted(set({heavy}) & set(sys.modules))))"
    run = f"{listed}\nfrom costbank_cli.main import main\nmain()"
    for words, loaded in (
        (["show", ""], "loaded:"),
        (["build", "--source", ""], "loaded:"),
        (["build", "--set", ""], "loaded: pydantic"),
        (["export", "news", "--format", ""], "loaded:"),
    ):
        done = _complete(store, *words, command=[sys.executable, "-c", run])
        assert done.stdout.splitlines()[-1].rstrip() == loaded, words


def test_an_empty_request_is_no_completion(store: Path):
    result = subprocess.run(
        [sys.executable, "-m", "costbank_cli", "list", "--store", str(store)],
        capture_output=True, text=True, check=True, timeout=60, env=os.environ | {"_COSTBANK_COMPLETE": ""},
    )  # fmt: skip
    assert "news@" in result.stdout
