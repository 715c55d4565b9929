"""After a writer is killed with SIGKILL at any step, the store lists no bank or only banks that verify."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from costbank.bank import Bank, BankWriter, Store, verify_bank
from costbank.bank.manifest import BankFacts
from costbank.bank.writer import STEPS
from costbank.neighbors import load_index


class InPlaceWriter(BankWriter):
    """A writer that is not atomic: it writes into the final directory, the manifest first."""

    source: Bank

    def __enter__(self) -> "InPlaceWriter":
        self._staged = self._directory / self.source.id
        self._staged.mkdir(parents=True)
        (self._staged / "manifest.json").write_bytes((self.source.path / "manifest.json").read_bytes())
        self._on_step("staged")
        return self


def _copy(source_path: str, directory: str, last_step: str, writer: type[BankWriter]) -> None:
    """Write the bank again, in a process that is killed after a step."""

    def on_step(step: str) -> None:
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    source = InPlaceWriter.source = Bank(Path(source_path))
    facts = json.loads((source.path / "manifest.json").read_text())
    for derived in ("digest", "format", "id", "files"):
        facts.pop(derived)
    with writer(Path(directory), on_step) as open_writer:
        open_writer.write_vectors((source.size, source.dim), "F32", [source.vectors()])
        open_writer.write_tokens(source.vocab)
        open_writer.write_rows(source.raw.norms, source.raw.to_unused)
        assert source.neighbors is not None
        open_writer.write_neighbors(source.neighbors)
        open_writer.write_index(load_index(np.fromfile(source.path / "index.faiss", np.uint8)))
        open_writer.write_map(np.where(source.usable[:, None], source.vectors()[:, :2], np.nan))
        card = (source.path / "README.md").read_text("utf-8")
        open_writer.publish(BankFacts.model_validate(facts), lambda _: card)


def _start(bank: Bank, directory: Path, last_step: str = "", writer: type[BankWriter] = BankWriter):
    """Run in a new process, forked from a server that has done the imports, which take longer than the writing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_copy, args=(str(bank.path), str(directory), last_step, writer))
    process.start()
    return process


def _write(bank: Bank, directory: Path, last_step: str, writer: type[BankWriter] = BankWriter) -> int | None:
    process = _start(bank, directory, last_step, writer)
    process.join(60)
    return process.exitcode


def _problems(store: Path) -> list[str]:
    """The problems of the listed banks that a user would see."""
    problems = []
    for place in Store(store).banks():
        problems += [f"{check.name}: {check.problem}" for check in verify_bank(place.path) if not check.ok]
    return problems


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
    has_problems = []
    for number, step in enumerate(STEPS[:6]):
        assert _write(news_bank, tmp_path / f"store{number}" / "news", step, InPlaceWriter) == -signal.SIGKILL
        has_problems.append(bool(_problems(tmp_path / f"store{number}")))
    assert any(has_problems)


def test_two_writers_of_one_bank_both_succeed(news_bank: Bank, tmp_path: Path):
    writers = [_start(news_bank, tmp_path / "news") for _ in range(3)]
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert sorted(path.name for path in (tmp_path / "news").iterdir()) == sorted([news_bank.id, "latest"])
    assert _problems(tmp_path) == []
