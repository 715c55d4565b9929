"""The wheel in an empty environment: three import packages, a small base, and a command line that works."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from costbank.bank import Bank

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(out),
            str(ROOT),
        ],
        check=True,
        timeout=300,
    )
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and the requirements of its base installation, at the locked versions."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    command = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--quiet", "--no-compile"]
    subprocess.run(
        [*command, "--disable-pip-version-check", "-c", ROOT / "requirements.lock", wheel], check=True, timeout=600
    )
    return place / "bin" / "python"


def _run(python: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=python.parent,
        env=environment | variables,
    )  # fmt: skip


@pytest.mark.parametrize("package", ["costbank", "costbank_service", "costbank_cli"])
def test_type_checkers_read_the_annotations(wheel: Path, package: str):
    assert f"{package}/py.typed" in zipfile.ZipFile(wheel).namelist()


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("costbank/analysis/report", "costbank/analysis/report"),
        ("service/costbank_service/web", "costbank_service/web"),
    ],
)
def test_the_files_of_pages_are_in_the_wheel(wheel: Path, source: str, folder: str):
    files = {path.name for path in (ROOT / source).iterdir() if path.suffix in (".html", ".css", ".js", ".svg")}
    assert len(files) >= 3
    assert {f"{folder}/{name}" for name in files} <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_three_packages_and_nothing_else(wheel: Path):
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"costbank", "costbank_service", "costbank_cli"}


def test_no_foreign_top_level_module_is_brought(python: Path):
    modules = ["service", "cli", "tests", "benchmarks", "data"]
    found = f"from importlib.util import find_spec; print([name for name in {modules} if find_spec(name)])"
    assert _run(python, "-c", found).stdout == "[]\n"


def test_the_base_installation_is_small(python: Path):
    listed = "from importlib.metadata import distributions; print(*(d.name.lower() for d in distributions()))"
    names = set(_run(python, "-c", listed).stdout.split())
    assert {"costbank", "numpy", "pydantic", "click", "rich", "platformdirs", "jaxtyping"} <= names
    assert not names & {"torch", "gensim", "faiss-cpu", "fastapi", "scipy", "sentencepiece", "transformers"}
    assert len(names) <= 20


def test_a_bank_can_be_read_with_the_base_alone(python: Path, news_bank: Bank):
    store = str(news_bank.path.parents[1])
    command = str(python.with_name("costbank"))
    result = subprocess.run(
        [command, "nearest", "news", "▁the", "-k", "2", "--store", store], capture_output=True, text=True, check=True
    )
    assert "nearest to ▁the" in result.stdout
    assert _run(python, "-m", "costbank_cli", "verify", "news", COSTBANK_STORE=store).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(["build", "--source", "word2vec", "--tokenizer", "x", "--corpus", "y"], "build"), (["serve"], "serve"),
     (["demo"], "demo"), (["tokenizer", "train", "x", "--out", "y"], "build")],
)  # fmt: skip
def test_a_command_that_needs_an_extra_names_it(python: Path, arguments: list[str], extra: str):
    result = _run(python, "-m", "costbank_cli", *arguments)
    assert result.returncode == 2, result.stderr
    assert f"pip install 'costbank[{extra}]'" in result.stderr


def test_the_loss_names_its_extra(python: Path):
    result = _run(python, "-c", "import costbank.loss")
    assert "costbank.errors.MissingExtraError" in result.stderr
