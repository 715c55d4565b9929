"""A build is stopped midway by Ctrl-C, SIGTERM or kill -9; then the same command runs again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from costbank.bank import Store


def _command(news: Path, news_model: Path, place: Path, epochs: int) -> list[str]:
    return [sys.executable, "-m", "costbank_cli", "build", "--source", "word2vec", "--corpus", str(news),
            "--tokenizer", str(news_model), "--store", str(place / "store"), "--cache", str(place / "cache"),
            "--name", "news", "--set", f"word2vec.epochs={epochs}"]  # fmt: skip


def _stop_while_training(command: list[str], place: Path, with_signal: signal.Signals) -> "tuple[int, str]":
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    until = time.monotonic() + 60
    while time.monotonic() < until and not list((place / "cache").glob("text/*/*")):
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(with_signal)
    try:
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, stderr


@pytest.mark.parametrize(
    ("with_signal", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
    ids=["Ctrl-C", "SIGTERM", "kill -9"],
)
def test_a_build_that_is_stopped_leaves_no_bank(news, news_model, tmp_path: Path, with_signal, status):
    returned, stderr = _stop_while_training(_command(news, news_model, tmp_path, 10_000), tmp_path, with_signal)
    assert returned == status, stderr
    assert list(Store(tmp_path / "store").banks()) == []
    if with_signal is not signal.SIGKILL:
        assert "Traceback" not in stderr
        assert not (tmp_path / "store" / "news").exists()
    finished = subprocess.run(_command(news, news_model, tmp_path, 1), capture_output=True, timeout=60, check=False)
    assert finished.returncode == 0
    assert sorted(path.name for path in (tmp_path / "store" / "news").iterdir())[-1] == "latest"
    assert len(list((tmp_path / "store" / "news").iterdir())) == 2
