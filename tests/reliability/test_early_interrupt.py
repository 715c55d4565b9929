"""Ctrl-C while the command line is still being imported: the process ends by the signal, without a traceback."""

import signal
import subprocess
import sys

import pytest

INTERRUPTED_IMPORT = """
import os, signal, sys
from costbank_cli.main import main

module, signals = sys.argv[1:]

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
signal.signal(signal.SIGINT, {"ignored": signal.SIG_IGN, "handled": signal.default_int_handler}[signals])
sys.argv = ["costbank", "--version"]
main()
"""

INSIDE = """
import signal
from contextlib import suppress
from costbank_cli.main import main

with suppress(SystemExit):
    main(["--version"])
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def _run(module: str, signals: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, module, signals]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["costbank_cli.command_line", "click", "costbank_cli.interrupts"])
def test_ctrl_c_during_the_imports_prints_no_traceback(module: str):
    done = _run(module, "handled")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_background_job_that_ignores_ctrl_c_still_does():
    done = _run("click", "ignored")
    assert (done.returncode, done.stderr) == (0, "")
    assert "version" in done.stdout


def test_a_call_inside_another_program_leaves_its_handler_alone():
    assert subprocess.run([sys.executable, "-c", INSIDE], capture_output=True, check=False).returncode == 0
