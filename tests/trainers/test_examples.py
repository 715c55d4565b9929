"""Every trainer example runs unchanged, without a network, and its loss falls."""

import re
from pathlib import Path

import pytest

from tests.warm import WarmPython

ROOT = Path(__file__).parents[2]
ALL = sorted((ROOT / "examples").glob("*.py"))
EXAMPLES = [path for path in ALL if "\nimport tiny\n" in path.read_text()]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_its_loss_falls(example: Path, warm: WarmPython, tmp_path: Path):
    result = warm.run(example, tmp_path / "program", environment={"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)})
    assert result.returncode == 0, result.stderr[-2000:]
    losses = [float(number) for number in re.findall(r"\bloss'?:? '?([0-9.]+)", result.stdout)]
    assert len(losses) >= 3
    assert losses[-1] < 0.8 * losses[0]


def test_the_readme_lists_every_example():
    readme = (ROOT / "examples" / "README.md").read_text()
    assert len(EXAMPLES) >= 5
    for example in ALL:
        assert f"[{example.name}]({example.name})" in readme
