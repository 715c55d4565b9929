"""A writer killed with SIGKILL after any of its steps leaves nothing listed, or banks that verify."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from costbank.bank import Bank, Store, verify_bank
from costbank.bank.writer import STEPS

WRITE = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from costbank.bank import Bank, BankWriter
from costbank.bank.manifest import BankFacts
from costbank.neighbors import load_index

source, directory, last_step, writer = Bank(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3], sys.argv[4]

def on_step(step):
    if step == last_step:
        os.kill(os.getpid(), signal.SIGKILL)

class InPlace(BankWriter):
    "Not atomic: fills the final directory under the final name, the manifest first."

    def __enter__(self):
        self._staged = self._directory / source.id
        self._staged.mkdir(parents=True)
        (self._staged / "manifest.json").write_bytes((source.path / "manifest.json").read_bytes())
        self._on_step("staged")
        return self

facts = json.loads((source.path / "manifest.json").read_text())
for derived in ("digest", "format", "id", "files"):
    facts.pop(derived)
with {"BankWriter": BankWriter, "InPlace": InPlace}[writer](directory, on_step) as open_writer:
    open_writer.write_vectors((source.size, source.dim), "F32", [source.vectors()])
    open_writer.write_tokens(source.vocab)
    open_writer.write_rows(source.raw.norms, source.raw.to_unused)
    open_writer.write_neighbors(source.neighbors)
    open_writer.write_index(load_index(np.fromfile(source.path / "index.faiss", np.uint8)))
    card = (source.path / "README.md").read_text("utf-8")
    open_writer.publish(BankFacts.model_validate(facts), lambda manifest: card)
"""


def _write(bank: Bank, directory: Path, last_step: str, writer: str = "BankWriter") -> int:
    command = [sys.executable, "-c", WRITE, str(bank.path), str(directory), last_step, writer]
    return subprocess.run(command, timeout=60, check=False).returncode


def _problems(store: Path) -> list[str]:
    """What a person would find wrong with the banks that are listed."""
    found = []
    for place in Store(store).banks():
        found += [f"{check.name}: {check.problem}" for check in verify_bank(place.path) if not check.ok]
    return found


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_after_any_step_leaves_nothing_or_a_whole_bank(news_bank: Bank, tmp_path: Path, step: str):
    assert _write(news_bank, tmp_path / "news", step) == -signal.SIGKILL
    assert _problems(tmp_path) == []
    listed = [place.id for place in Store(tmp_path).banks()]
    assert listed == ([news_bank.id] if STEPS.index(step) >= STEPS.index("renamed") else [])
    assert _write(news_bank, tmp_path / "news", "") == 0
    assert Store(tmp_path).resolve("news").name == news_bank.id
    assert sorted(path.name for path in (tmp_path / "news").iterdir()) == sorted([news_bank.id, "latest"])


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_leaves_an_older_bank_as_it_was(news_bank: Bank, tmp_path: Path, step: str):
    older = tmp_path / "news" / "0123456789abcdef"
    shutil.copytree(news_bank.path, older)
    (tmp_path / "news" / "latest").write_text("0123456789abcdef\n")
    _write(news_bank, tmp_path / "news", step)
    assert _problems(tmp_path) == []
    expected = news_bank.id if step == "latest replaced" else "0123456789abcdef"
    assert Store(tmp_path).resolve("news").name == expected


def test_a_writer_that_is_not_atomic_would_be_found_out(news_bank: Bank, tmp_path: Path):
    found = []
    for number, step in enumerate(STEPS[:6]):
        assert _write(news_bank, tmp_path / f"store{number}" / "news", step, "InPlace") == -signal.SIGKILL
        found.append(bool(_problems(tmp_path / f"store{number}")))
    assert any(found)


def test_two_writers_of_one_bank_both_succeed(news_bank: Bank, tmp_path: Path):
    command = [sys.executable, "-c", WRITE, str(news_bank.path), str(tmp_path / "news"), "", "BankWriter"]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert sorted(path.name for path in (tmp_path / "news").iterdir()) == sorted([news_bank.id, "latest"])
    assert _problems(tmp_path) == []
