"""Ctrl-C while the main thread is inside FAISS, LAPACK or waits for processes: handled at once, no leftovers."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ANSWER_S = 1.0
END_S = 6.0
NOISE = ("Traceback", "semaphore", "semlock", "resource_tracker", "leaked", "Exception ignored", "KeyboardInterrupt")

IN_LAPACK = """
import sys, time
from pathlib import Path
import click
from costbank_cli import command_line
from costbank.files import staging_directory

class Stuck(click.Command):
    def invoke(self, ctx):
        import numpy as np
        with staging_directory(Path(sys.argv[1]) / "made" / "for-it") as staged:
            (staged / "half").write_text("half")
            matrix = np.random.default_rng(1).standard_normal((6_000, 6_000))
            print("stuck", file=sys.stderr, flush=True)
            np.linalg.svd(matrix)

command_line.command_line.make_context = lambda *_, **__: click.Context(Stuck("stuck"))
command_line.command_line.invoke = lambda ctx: ctx.command.invoke(ctx)
command_line.run([])
"""
"""The whole command line around one call that takes minutes and ignores signals."""


@dataclass
class Stopped:
    """The effect of a signal: seconds until the message and until the end of the process, and all of stderr."""

    status: int
    answered: float
    ended: float
    err: str


def _stop(command: list[str], ready: str, signals: list[tuple[float, signal.Signals]]) -> Stopped:
    """Start a command in its own process group and signal the whole group, as a terminal does."""
    lines: list[tuple[float, str]] = []
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None

        def read(stream=process.stderr) -> None:
            lines.extend((time.monotonic(), line) for line in stream)

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        try:
            _wait(lambda: process.poll() is not None or any(ready in line for _, line in lines))
            began = 0.0
            for delay, number in signals:
                time.sleep(delay)
                began = began or time.monotonic()
                os.killpg(process.pid, number)
            process.wait(60)
            ended = time.monotonic() - began
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        reading.join(10)
    answers = [at - began for at, line in lines if line.startswith("stopping…")]
    return Stopped(process.returncode, answers[0] if answers else 999.0, ended, "".join(line for _, line in lines))


def _wait(until: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.02)


def _check(stopped: Stopped, status: int, within_s: float = END_S) -> None:
    assert stopped.status == status, stopped.err
    assert stopped.answered < ANSWER_S, stopped.err
    assert stopped.ended < within_s, stopped.err
    assert stopped.err.count("stopping…") == 1
    assert "no partial output was left behind" in stopped.err
    assert not [noise for noise in NOISE if noise in stopped.err], stopped.err


@pytest.mark.parametrize(
    ("signals", "status", "within_s"),
    [
        ([(0.5, signal.SIGINT)], 130, END_S),
        ([(0.5, signal.SIGTERM)], 143, END_S),
        ([(0.5, signal.SIGINT), (0.2, signal.SIGINT)], 130, 1.5),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice"],
)
def test_a_call_into_lapack_is_left(tmp_path: Path, signals, status: int, within_s: float):
    stopped = _stop([sys.executable, "-c", IN_LAPACK, str(tmp_path)], "stuck", signals)
    _check(stopped, status, within_s)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("times", [1, 2])
def test_a_neighbor_table_is_left(tmp_path: Path, times: int):
    """FAISS runs over rows that would take it a minute."""
    (tmp_path / "words.txt").write_text("\n".join(f"w{i}" for i in range(60_000)))
    np.save(tmp_path / "v.npy", np.random.default_rng(1).standard_normal((60_000, 256)).astype("f4"))
    command = [sys.executable, "-m", "costbank_cli", "build", "--source", "vectors", "--name", "x",
               "--vectors", str(tmp_path / "v.npy"), "--tokenizer", str(tmp_path / "words.txt"),
               "--set", "tokenizer_kind=list", "--store", str(tmp_path / "store")]  # fmt: skip
    signals = [(1.0, signal.SIGINT), (0.2, signal.SIGINT)][:times]
    _check(_stop(command, "write vectors: 60,000", signals), 130, END_S if times == 1 else 1.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.npy", "words.txt"]


def test_a_terminal_has_its_cursor_again(tmp_path: Path):
    """A running progress bar hides the cursor."""
    ours, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", IN_LAPACK, str(tmp_path)], stdin=terminal, stdout=terminal, stderr=terminal,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(terminal)
        output, pressed = b"", False
        with suppress(OSError):  # when the last process on the terminal ends
            while part := os.read(ours, 65_536):
                output += part
                if b"stuck" in output and not pressed:
                    time.sleep(0.5)
                    os.killpg(process.pid, signal.SIGINT)
                    pressed = True
        os.close(ours)
        assert process.wait(60) == 130
    text = output.decode()
    assert text.index("stopping…") < text.rindex("\x1b[?25h") < text.index("error: interrupted")


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.5, 1.5])
def test_processes_that_encode_end_in_silence(news: Path, news_model: Path, tmp_path: Path, delay: float):
    """The terminal signals all workers, some of them while they start."""
    (tmp_path / "big.txt").write_text(news.read_text("utf-8") * 100, "utf-8")
    command = [sys.executable, "-m", "costbank_cli", "build", "--source", "cooccurrence", "--name", "x",
               "--corpus", str(tmp_path / "big.txt"), "--tokenizer", str(news_model), "--processes", "2",
               "--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache")]  # fmt: skip
    _check(_stop(command, "digest files", [(delay, signal.SIGINT)]), 130)
    assert not (tmp_path / "store").exists()
    assert not list((tmp_path / "cache").rglob(".staging-*"))


def test_a_command_in_the_background_goes_on(tmp_path: Path):
    """A script's shell makes a background command ignore Ctrl-C, but the terminal still sends it."""
    (tmp_path / "words.txt").write_text("\n".join(f"word{i}" for i in range(3_000)))
    command = [sys.executable, "-m", "costbank_cli", "build", "--source", "spelling", "--name", "x",
               "--tokenizer", str(tmp_path / "words.txt"), "--set", "tokenizer_kind=list",
               "--store", str(tmp_path / "store")]  # fmt: skip
    ignoring = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *command]
    stopped = _stop(ignoring, "factorize", [(0.0, signal.SIGINT), (0.1, signal.SIGINT)])
    assert stopped.status == 0, stopped.err
    assert "stopping…" not in stopped.err
    assert (tmp_path / "store" / "x" / "latest").exists()


def test_a_server_answers_signals_itself(tmp_path: Path):
    command = [sys.executable, "-m", "costbank_cli", "serve", "--port", "0", "--store", str(tmp_path / "none")]
    stopped = _stop(command, "does not exist yet", [(1.5, signal.SIGINT)])
    assert stopped.status in (0, 130)
    assert stopped.ended < END_S
    assert "Traceback" not in stopped.err


INTERRUPTED_IMPORT = """
import os, signal, sys
import click
from costbank_cli import command_line

def invoke(ctx):
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    except BaseException:
        raise ImportError("initialization failed") from None

command_line.command_line.make_context = lambda *_, **__: click.Context(click.Command("import"))
command_line.command_line.invoke = invoke
command_line.run([])
"""
"""An extension module whose import is interrupted raises only a general ImportError."""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_error_caused_by_a_stop_is_not_reported(name: str, status: int):
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert "stopping" in done.stderr
    assert not any(noise in done.stderr for noise in NOISE)
    assert "ImportError" not in done.stderr
