from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from costbank_cli.main import main

from costbank.bank import Bank


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], news_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process, on the store of the small news bank."""
    monkeypatch.setenv("COSTBANK_STORE", str(news_bank.path.parents[1]))

    def call(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(caught.value.code or 0), captured.out, captured.err)

    return call
