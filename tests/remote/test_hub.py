"""Banks on the Hugging Face Hub: huggingface_hub's client against a stand-in for the Hub.

The client reads its variables when it is imported, so each command is a new process.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from costbank.bank import Bank
from tests.remote.conftest import listed
from tests.remote.hub import Hub, hub
from tests.service.banks import write_bank

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def models() -> Iterator[Hub]:
    with hub() as made:
        yield made


@pytest.fixture
def run(models: Hub, cache: Path, tmp_path: Path) -> Run:
    """Runs a command with the variables of the Hub's client; a token is given if `token` is."""

    def call(*arguments: str | Path, token: str = models.token) -> "subprocess.CompletedProcess[str]":
        variables = {"HF_ENDPOINT": models.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
                     "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | variables
        if token:
            environment["HF_TOKEN"] = token
        command = [sys.executable, "-m", "costbank_cli", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    return call


def test_a_bank_is_pushed_as_one_commit_and_opened(models: Hub, run: Run, cache: Path, big_bank: Bank, tmp_path: Path):
    pushed = run("push", big_bank.path, "hf://costs/Big_Bank")
    assert pushed.returncode == 0, pushed.stderr
    commit, files = models.files("costs/Big_Bank", "main")
    assert pushed.stdout == f"hf://costs/Big_Bank@{commit}\n"
    assert set(files) == {".gitattributes", "manifest.json", *big_bank.manifest.files}
    assert files["README.md"] == (big_bank.path / "README.md").read_bytes()
    assert len(models.commits["costs/Big_Bank"]) == 2, "one by the creation, one by the push"

    shown = run("show", "hf://costs/Big_Bank", "--json")
    assert shown.returncode == 0, shown.stderr
    assert listed(cache) == [f"big_bank@{big_bank.id}"]
    pulled = run("pull", f"hf://costs/Big_Bank@{commit}", "--name", "mine", "--store", tmp_path / "target")
    assert pulled.returncode == 0, pulled.stderr
    assert listed(tmp_path / "target") == [f"mine@{big_bank.id}"]


@pytest.mark.slow
def test_a_revision_is_resolved_once_and_a_commit_needs_no_request(models: Hub, run: Run, cache: Path, tmp_path: Path):
    names = ("first", "second")
    first, second = (write_bank(tmp_path / name, [b" a", b" b", b" c", b" d", b" e"], seed=i, index=not i)
                     for i, name in enumerate(names))  # fmt: skip
    commits = [
        models.commit("costs/small", branch, {path.name: path.read_bytes() for path in bank.path.iterdir()})
        for branch, bank in (("old", first), ("main", second))
    ]
    assert f"small@{first.id}" in run("show", "hf://costs/small@old").stdout
    assert f"small@{second.id}" in run("show", "hf://costs/small").stdout
    assert run("show", f"hf://costs/small@{commits[0]}").returncode == 0
    models.requests.clear()
    assert f"small@{first.id}" in run("show", f"hf://costs/small@{commits[0]}").stdout
    assert models.requests == []
    assert listed(cache) == sorted(f"small@{bank.id}" for bank in (first, second))
    pushed = run("push", second.path, "hf://costs/small@old")
    assert pushed.returncode == 0, pushed.stderr
    assert "index.faiss" not in models.files("costs/small", "old")[1]


@pytest.mark.slow
def test_what_the_hub_refuses_is_said(models: Hub, run: Run, cache: Path, big_bank: Bank):
    models.commit("costs/hidden", "main", {"config.json": b"{}"})
    models.private.add("costs/hidden")
    for url, token, status, message in [
        ("hf://costs/hidden", "", 5, "HF_TOKEN"),
        ("hf://costs/hidden", models.token, 3, "is not a bank"),
        ("hf://costs/hidden@v9", models.token, 3, "no such revision"),
        ("hf://costs/nothing", models.token, 3, "no repository"),
    ]:
        result = run("show", url, token=token)
        assert (result.returncode, message in result.stderr) == (status, True), result.stderr
    result = run("push", big_bank.path, "hf://costs/mine", token="hf_wrong")
    assert (result.returncode, "refuses the upload" in result.stderr) == (5, True), result.stderr
    assert listed(cache) == []


@pytest.mark.slow
@pytest.mark.parametrize("change", ["flipped", "shorter"])
def test_a_damaged_repository_is_refused(models: Hub, run: Run, cache: Path, big_bank: Bank, change: str):
    files = {path.name: path.read_bytes() for path in big_bank.path.iterdir()}
    data = files["vectors.safetensors"]
    files["vectors.safetensors"] = data[:-1] + (bytes([data[-1] ^ 1]) if change == "flipped" else b"")
    models.commit("costs/big", "main", files)
    result = run("show", "hf://costs/big")
    assert (result.returncode, "vectors.safetensors has" in result.stderr) == (4, True), result.stderr
    assert listed(cache) == []
