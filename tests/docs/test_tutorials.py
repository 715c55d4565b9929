"""The tutorials run exactly as printed, on a tiny model and a small corpus."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.trainers.conftest import SMALL, TEXTS, make_tokenizer

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"

BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SAVED = re.compile(r"^Save this as `(?P<name>[\w.]+)`", re.MULTILINE)


def run_tutorial(page: Path, folder: Path) -> str:
    """Save the page's Python under the name that the page gives, run its commands in order, and return their output."""
    text = page.read_text("utf-8")
    blocks = [(match["kind"], match["text"]) for match in BLOCK.finditer(text)]
    (name,) = SAVED.findall(text)
    (script,) = (block for kind, block in blocks if kind == "python")
    (folder / name).write_text(script, "utf-8")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COSTBANK_STORE": str(folder / "store"),
        "COSTBANK_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # with tensors this small, threads mostly wait for each other
    }
    printed = ""
    for commands in (block for kind, block in blocks if kind == "sh"):
        result = subprocess.run(
            ["sh", "-ec", commands],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        printed += result.stdout
    return printed


def test_fine_tuning_from_a_head_runs_as_printed(tmp_path: Path):
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(tmp_path / "model")
    make_tokenizer(TEXTS).save_pretrained(tmp_path / "model")
    (tmp_path / "train.txt").write_text("\n".join(TEXTS[4:]))
    (tmp_path / "held-out.txt").write_text("\n".join(TEXTS[:4]))
    printed = run_tutorial(TUTORIALS / "fine-tune.md", tmp_path)
    assert "my-model@" in printed
    assert "nearest to" in printed
    assert re.findall(r"^(\S+): held-out cross-entropy [\d.]+$", printed, re.M) == ["cross-entropy", "softened"]
    plain, softened = map(float, re.findall(r"'train_loss': '?([\d.]+)", printed))
    assert plain != softened


def test_pretraining_from_a_corpus_runs_as_printed_and_its_loss_falls(tmp_path: Path, news: Path):
    (tmp_path / "corpus").mkdir()
    shutil.copy(news, tmp_path / "corpus" / "news.txt")
    printed = run_tutorial(TUTORIALS / "pretrain.md", tmp_path)
    assert "nearest to ▁people" in printed
    losses = [float(loss) for loss in re.findall(r"^step \d+: loss ([\d.]+)", printed, re.M)]
    assert len(losses) == 3
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda page: page.name)
def test_every_tutorial_is_short(page: Path):
    (script,) = (match["text"] for match in BLOCK.finditer(page.read_text("utf-8")) if match["kind"] == "python")
    assert len(script.splitlines()) <= 26
