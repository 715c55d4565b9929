"""The examples that use a bank without our loss run as they are, and name a missing package."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(name: str, *, without: str | None = None) -> subprocess.CompletedProcess[str]:
    script = ROOT / "examples" / name
    command = [sys.executable, str(script)]
    if without is not None:
        hide = (
            f"import runpy, sys; sys.modules[{without!r}] = None; runpy.run_path({str(script)!r}, run_name='__main__')"
        )
        command = [sys.executable, "-c", hide]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | {"PYTHONPATH": path}
    )


@pytest.mark.skipif(find_spec("emo") is None, reason="the package EMOLoss, the published code, is not installed")
def test_the_published_loss_trains_on_a_bank():
    result = _run("published_emoloss.py")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "published loss with rows of zeros: nan" in lines[1]
    losses = [float(line.split()[-1]) for line in lines if line.startswith("step")]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2
    assert float(lines[-1].split()[-1]) < 1e-5


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_the_loss_in_jax_agrees_with_ours():
    result = _run("jax_loss.py")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "the results agree within 1e-5"


@pytest.mark.parametrize(
    ("name", "module", "package"), [("published_emoloss.py", "emo", "EMOLoss"), ("jax_loss.py", "jax", "jax")]
)
def test_a_missing_package_is_named_without_a_traceback(name: str, module: str, package: str):
    result = _run(name, without=module)
    assert result.returncode == 1
    assert f"pip install {package}" in result.stderr
    assert "Traceback" not in result.stderr
