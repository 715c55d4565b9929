"""`costbank tokenizer train` as a process: in a pipe, from standard input, stopped midway, and run again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "costbank_cli", "tokenizer", "train"]


def _train(*arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_training_prints_the_file_and_a_next_command_that_works(news: Path, tmp_path: Path):
    (tmp_path / "a b.jsonl").write_text("".join(json.dumps({"body": t}) + "\n" for t in news.read_text().splitlines()))
    how = ["--set", "corpus.text_field=body"]
    done = _train("a b.jsonl", *how, "--out", "my.model", "--vocab-size", 900, "--type", "bpe", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written, following = done.stdout.splitlines()
    assert written.startswith("my.model  900 pieces  fingerprint ")
    assert following == (
        "next: costbank build --source cooccurrence --corpus 'a b.jsonl' "
        "--tokenizer my.model --set corpus.text_field=body"
    )
    assert "train a bpe tokenizer: " in done.stderr
    build = following.removeprefix("next: ").replace("costbank", f"'{sys.executable}' -m costbank_cli", 1)
    built = subprocess.run(
        f"{build} --store s --cache c --set cooccurrence.dim=8",
        shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert built.stdout.startswith("my-cooccurrence@")


def test_standard_input_is_trained_on_and_a_second_run_replaces_nothing(news: Path, tmp_path: Path):
    arguments = ["-", "--out", tmp_path / "my.model", "--vocab-size", 900, "--type", "bpe"]
    assert _train(*arguments, input=news.read_text("utf-8")).returncode == 0
    first = (tmp_path / "my.model").read_bytes()
    again = _train(*arguments, input="something else")
    assert (again.returncode, again.stdout) == (2, "")
    assert "--overwrite" in again.stderr
    assert (tmp_path / "my.model").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["my.model"]
    replaced = _train(news, *arguments[1:3], "--vocab-size", 800, "--type", "bpe", "--overwrite", "--json")
    assert json.loads(replaced.stdout)["vocab"] == 800
    assert (tmp_path / "my.model").read_bytes() != first


def test_a_setting_that_says_nothing_about_text_is_refused(news: Path, tmp_path: Path):
    done = _train(news, "--out", tmp_path / "my.model", "--set", "word2vec.epochs=3")
    assert done.returncode == 2
    assert "word2vec.epochs" in done.stderr
    assert "corpus.text_field" in done.stderr


@pytest.fixture(scope="module")
def much_text(news: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text that takes some seconds to train on: every word with every number, so that all words differ."""
    path = tmp_path_factory.mktemp("much") / "text.txt"
    words = sorted(set(news.read_text("utf-8").split()))
    path.write_text("\n".join(" ".join(f"{word}{number}" for word in words) for number in range(40)))
    return path


@pytest.mark.parametrize(
    ("with_signal", "to_all", "status"),
    [
        (signal.SIGINT, True, 130),
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, False, 143),
        (signal.SIGKILL, False, -9),
    ],
    ids=["Ctrl-C", "SIGINT", "SIGTERM", "kill -9"],
)
def test_a_training_that_is_stopped_leaves_what_was_there(
    much_text: Path, news: Path, tmp_path: Path, with_signal: signal.Signals, to_all: bool, status: int
):
    out = tmp_path / "new" / "my.model"
    process = subprocess.Popen(
        [*COMMAND, str(much_text), "--out", str(out), "--vocab-size", "8000"],
        stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr
    try:
        while not (line := process.stderr.readline()).endswith("bytes/s\n"):  # the text is read, and training begins
            assert line, process.wait()
        (os.killpg if to_all else os.kill)(process.pid, with_signal)
        _, stderr = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == status, stderr
    assert "Traceback" not in stderr
    assert not out.exists()
    if with_signal is not signal.SIGKILL:
        assert not out.parent.exists()
    done = _train(news, "--out", out, "--vocab-size", 900, "--type", "bpe")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["my.model"]
