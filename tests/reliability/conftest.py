import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def costbank(tmp_path: Path) -> Run:
    """Runs the command line in its own process, with its cache in the test's directory."""

    def run(*arguments: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "costbank_cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)

    return run
