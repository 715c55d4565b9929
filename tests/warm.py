"""Run Python code in forks of a process that has imported heavy libraries, which takes longer than the code itself.

python -m tests.warm MODULE ...     import the modules, then run the programs that are requested in lines of JSON
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["WarmPython"]

_SECONDS = 300.0


class WarmPython:
    """The process that forks. It never runs the code itself, so each fork is like a fresh process after the imports.

    Args:
        modules: what it imports.
    """

    def __init__(self, *modules: str) -> None:
        command = [sys.executable, "-m", "tests.warm", *modules]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])

    def run(
        self, code: str | Path, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program, and return its result as `subprocess.run` does.

        Args:
            code: the path of a script, or the source itself.
            folder: a folder for its output, which this makes.
            arguments: of the program.
            environment: variables to change. Libraries that were imported may have read them before.

        Raises:
            TimeoutError: the program took more than five minutes, and was killed.
        """
        folder.mkdir(parents=True)
        request = {"folder": str(folder), "arguments": arguments, "environment": dict(environment or {})}
        request["script" if isinstance(code, Path) else "code"] = str(code)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        until = time.monotonic() + _SECONDS
        while not (folder / "status").exists():
            if time.monotonic() > until:
                with suppress(OSError, ValueError):
                    os.killpg(int((folder / "group").read_text()), signal.SIGKILL)
                raise TimeoutError(f"it ran for more than {_SECONDS:.0f} s: {(folder / 'stderr').read_text()}")
            time.sleep(0.02)
        status = int((folder / "status").read_text())
        out, err = ((folder / name).read_text("utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([str(code)], status, out, err)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def _serve(modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _supervise(json.loads(line))


def _supervise(request: dict) -> None:
    """In a fork: run the program in a fork of its own, and write its exit status when it has ended."""
    folder = Path(request["folder"])
    os.setsid()
    (folder / "group").write_text(str(os.getpid()))
    if not (pid := os.fork()):
        _run(request)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    (folder / "status.part").write_text(str(status))
    (folder / "status.part").rename(folder / "status")
    os._exit(0)


def _run(request: dict) -> None:
    folder = Path(request["folder"])
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # which may have been chosen before $TMPDIR changed
    status = 1
    try:
        sys.argv = [request.get("script", "-c"), *request["arguments"]]
        if "script" in request:
            sys.path.insert(0, str(Path(request["script"]).parent))
            runpy.run_path(request["script"], run_name="__main__")
        else:
            exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as error:
        if not isinstance(error.code, int | None):
            print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1:])
