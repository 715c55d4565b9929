"""Programs that run in forks end as fresh processes do: with their own status, output and variables."""

import os
from pathlib import Path

from tests.warm import WarmPython


def test_a_program_has_its_own_output_arguments_and_variables(warm: WarmPython, tmp_path: Path):
    code = "import os, sys, tempfile; print(sys.argv[1:], os.environ['SOME'], tempfile.gettempdir(), __name__)"
    variables = {"SOME": "value", "TMPDIR": str(tmp_path)}
    done = warm.run(code, tmp_path / "program", "one", "two words", environment=variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"['one', 'two words'] value {tmp_path} __main__\n"
    assert "SOME" not in os.environ


def test_a_program_that_fails_says_how(warm: WarmPython, tmp_path: Path):
    failed = warm.run("print('so far'); 1 / 0", tmp_path / "failed")
    assert (failed.returncode, failed.stdout) == (1, "so far\n")
    assert failed.stderr.endswith("ZeroDivisionError: division by zero\n")
    refused = warm.run("raise SystemExit('no file')", tmp_path / "refused")
    assert (refused.returncode, refused.stderr) == (1, "no file\n")
    (tmp_path / "script.py").write_text("raise SystemExit(7)")
    assert warm.run(tmp_path / "script.py", tmp_path / "exited").returncode == 7
    killed = warm.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "killed")
    assert killed.returncode == -9


def test_a_program_leaves_nothing_for_the_next(warm: WarmPython, tmp_path: Path):
    warm.run("import sys; sys.modules['left'] = 1", tmp_path / "first")
    done = warm.run("import sys; print('left' in sys.modules)", tmp_path / "second")
    assert done.stdout == "False\n"
