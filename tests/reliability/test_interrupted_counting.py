"""The counting of pairs is stopped by Ctrl-C or kill -9; then the same command runs again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 million token ids from a vocab of 2,000, frequent and rare, in documents of about a hundred ids."""
    path = tmp_path_factory.mktemp("ids") / "train.npy"
    random = np.random.default_rng(3)
    np.save(path, np.minimum(3 + random.zipf(1.2, 12_000_000) % 1_997, 1_999).astype(np.uint16))
    return path


def _command(ids: Path, model: Path, place: Path) -> list[str]:
    return [sys.executable, "-m", "costbank_cli", "build", "--source", "cooccurrence", "--corpus", str(ids),
            "--tokenizer", str(model), "--store", str(place / "store"), "--cache", str(place / "cache"), "--json",
            "--name", "counted", "--processes", "2", "--set", "corpus.separator=7", "--set", "cooccurrence.window=6",
            "--set", "cooccurrence.side=both",
            "--set", "cooccurrence.dim=4", "--set", "neighbors.k=0"]  # fmt: skip


@pytest.fixture(scope="module")
def digest(ids: Path, news_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The counts of an uninterrupted build."""
    done = subprocess.run(
        _command(ids, news_model, tmp_path_factory.mktemp("whole")), capture_output=True, check=True, timeout=120
    )
    return json.loads(done.stdout)["facts"]["counts_sha256"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_counting_goes_on_where_it_was(ids: Path, news_model: Path, digest: str, tmp_path: Path, how: signal.Signals):
    process = subprocess.Popen(_command(ids, news_model, tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    until = time.monotonic() + 60
    while len(runs := list((tmp_path / "cache" / "pairs").glob("*.work/*.run"))) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(runs) >= 5
    process.send_signal(how)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    assert b"Traceback" not in stderr
    counted = {run.name: run.read_bytes() for run in (tmp_path / "cache" / "pairs").glob("*.work/*.run")}
    assert {run.name for run in runs} <= set(counted)
    assert len(counted) < 60
    if how == signal.SIGINT:
        assert not (tmp_path / "cache" / "staging").exists()
    assert not (tmp_path / "store" / "counted" / "latest").exists()

    done = subprocess.run(
        _command(ids, news_model, tmp_path), capture_output=True, check=True, timeout=120, env=dict(os.environ)
    )
    assert json.loads(done.stdout)["facts"]["counts_sha256"] == digest
    (counted_again,) = re.findall(rb"count pairs: ([\d,]+) tokens", done.stderr)
    assert int(counted_again.replace(b",", b"")) < 12_000_000 * (64 - len(runs) + 1) / 64
    left = {path.relative_to(tmp_path / "cache").parts[0] for path in (tmp_path / "cache").rglob("*")}
    assert left <= {"text", "pairs", "digests"}
    assert not list((tmp_path / "cache" / "pairs").glob("*.work"))
