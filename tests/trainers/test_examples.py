"""Every trainer example runs unchanged, without a network, and its loss falls."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALL = sorted((ROOT / "examples").glob("*.py"))
EXAMPLES = [path for path in ALL if "\nimport tiny\n" in path.read_text()]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_its_loss_falls(example: Path, tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, str(example)], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    losses = [float(number) for number in re.findall(r"\bloss'?:? '?([0-9.]+)", result.stdout)]
    assert len(losses) >= 3
    assert losses[-1] < 0.8 * losses[0]


def test_the_readme_lists_every_example():
    readme = (ROOT / "examples" / "README.md").read_text()
    assert len(EXAMPLES) >= 5
    for example in ALL:
        assert f"[{example.name}]({example.name})" in readme
