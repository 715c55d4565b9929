"""Real pipes, full disks and closed streams around real processes."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from costbank.bank import Bank

COSTBANK = [sys.executable, "-m", "costbank_cli"]
NEAREST = ["nearest", "news", "▁the", "-k", "1900"]
PIPE_BYTES = 4096


@pytest.fixture
def store(news_bank: Bank) -> dict[str, str]:
    """The environment of a process that uses the news bank's store.

    PYTHONUNBUFFERED is removed: without a buffer, Python treats a truncated write as complete and raises no error.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "COSTBANK_STORE": str(news_bank.path.parents[1])}


def _shell(command: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    python = " ".join(COSTBANK)
    return subprocess.run(
        ["bash", "-c", command.replace("costbank", python)], capture_output=True, text=True, timeout=60, check=False,
        env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [NEAREST, [*NEAREST, "--json"]], ids=["table", "json"])
def test_a_reader_that_leaves_ends_the_command_in_silence(arguments: list[str], store: dict[str, str]):
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # smaller than the output, so the command must wait
    with subprocess.Popen([*COSTBANK, *arguments], stdout=write_end, stderr=subprocess.PIPE, env=store) as process:
        os.close(write_end)
        assert os.read(read_end, 10)
        os.close(read_end)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (141, b"")


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--version"], ["nearest", "--help"], ["list"], ["cost"], NEAREST]
)
def test_a_reader_that_was_never_there(arguments: list[str], store: dict[str, str]):
    """The help of groups and commands, and the version, are printed before any command runs."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([*COSTBANK, *arguments], stdout=write_end, stderr=subprocess.PIPE, env=store, timeout=60)
    os.close(write_end)
    if arguments == ["cost"]:  # this is an error, with its own stream and status
        assert done.returncode == 2
        assert done.stderr.startswith(b"error: ")
    else:
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("command", ["costbank show missing", "costbank nearest news the -k 5", "costbank frobnicate"])
def test_a_reader_of_stderr_that_leaves_changes_no_status_of_an_error(command: str, store: dict[str, str]):
    done = _shell(f"{command} 2>&1 >/dev/null | true; echo ${{PIPESTATUS[0]}}", store)
    assert done.stdout.strip() in ({"show": "3", "frobnicate": "2"}.get(command.split()[1], "0"), "141")
    assert done.stderr == ""


def test_head_gets_the_lines_that_it_reads(store: dict[str, str], news_bank: Bank):
    nearest = news_bank.nearest("▁the", 2)
    done = _shell("set -o pipefail; costbank nearest news ▁the -k 1900 | head -3", store)
    assert done.returncode in (0, 141)  # 0 if the whole output was in the pipe before head ended
    assert done.stderr == ""
    assert [line.split()[1] for line in done.stdout.splitlines()[1:]] == [str(n.id) for n in nearest]
    done = _shell("costbank nearest news ▁the -k 2 --json | head -c 100000", store)
    assert [n["id"] for n in json.loads(done.stdout)["neighbors"]] == [n.id for n in nearest]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", ["", "show news", "nearest news ▁the --json"])
def test_output_to_a_full_disk_is_one_error(arguments: str, store: dict[str, str]):
    done = _shell(f"costbank {arguments} >/dev/full", store)
    assert done.returncode == 5
    error, hint = done.stderr.splitlines()
    assert error == "error: No space left on device"
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(("closed", "out"), [(">&-", False), ("2>&-", True), ("<&-", True), ("<&- >&- 2>&-", False)])
def test_closed_streams_do_no_harm(closed: str, out: bool, store: dict[str, str]):
    done = _shell(f"costbank nearest news ▁the -k 3 {closed}", store)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == out
    assert _shell(f"costbank show missing {closed}", store).returncode == 3
