"""The libraries that the trainers import, and the error if a framework is missing."""

import subprocess
import sys

import pytest


def _run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    return result.stdout + result.stderr


ORDER = """
import importlib, sys

for module, *heavy in (
    ("costbank.trainers", "torch", "transformers", "lightning"),
    ("costbank.loss", "transformers", "lightning"),
    ("costbank.trainers.lightning", "transformers", "lightning"),
    ("costbank.trainers.huggingface", "lightning", "trl", "datasets"),
):
    importlib.import_module(module)
    print(module, [name for name in heavy if name in sys.modules])
"""
"""In one process: each module may load less than the modules after it, so its check finds what it loads itself."""


def test_a_module_loads_no_framework_but_its_own():
    assert _run(ORDER).splitlines() == [
        "costbank.trainers []",
        "costbank.loss []",
        "costbank.trainers.lightning []",
        "costbank.trainers.huggingface []",
    ]


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("costbank.trainers.huggingface", "transformers", "trainers"),
        ("costbank.trainers.huggingface", "torch", "trainers"),
        ("costbank.trainers.lightning", "torch", "trainers"),
        ("costbank.loss", "torch", "train"),
    ],
)
def test_a_missing_framework_is_named_with_its_extra(module: str, missing: str, extra: str):
    printed = _run(f"import sys; sys.modules[{missing!r}] = None; import {module}").splitlines()
    assert printed[-2:] == [
        f"costbank.errors.MissingExtraError: this needs the Python library {missing!r}, which is not installed",
        f"hint: pip install 'costbank[{extra}]'",
    ]
