"""Tab completion in real shells: bash, zsh and fish, each in its own terminal."""

import fcntl
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from costbank.bank import Bank

LINES = {
    "costbank sho": "costbank show ",
    "costbank show new": "costbank show news ",
    "costbank show news@": "costbank show news@{id} ",
    "costbank build --source=wo": "costbank build --source=word2vec ",
    "costbank build --set word2vec.ep": "costbank build --set word2vec.epochs=",
    "costbank build --set corpus.on_error=re": "costbank build --set corpus.on_error=refuse ",
    "costbank build --set=corpus.on_error=re": "costbank build --set=corpus.on_error=refuse ",
    "costbank build --set corpus.files=tw": "costbank build --set corpus.files=two.txt ",
    "costbank build --corpus one.txt tw": "costbank build --corpus one.txt two.txt ",
}
"""The line before and after TAB."""

RC = {
    "bash": 'PS1="ready> "; bind "set enable-bracketed-paste off"\neval "$(_COSTBANK_COMPLETE=bash_source costbank)"\n',
    "zsh": "autoload -Uz compinit; compinit -u -D; bindkey -e; unsetopt PROMPT_SP PROMPT_CR\n"
           'eval "$(_COSTBANK_COMPLETE=zsh_source costbank)"; PS1="ready> "\n',
    "fish": "_COSTBANK_COMPLETE=fish_source costbank | source; function fish_prompt; echo -n 'ready> '; end\n",
}  # fmt: skip
COMMANDS = {
    "bash": ["bash", "--noprofile", "--rcfile", "{rc}", "-i"],
    "zsh": ["zsh", "-d", "-i"],
    "fish": ["fish", "--no-config", "-i", "-C", "source {rc}"],
}
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>(].?)")


def _is_installed(shell: str) -> bool:
    if shutil.which(shell) and shell == "bash":  # the completion needs 4.4
        version = subprocess.run(["bash", "-c", "echo ${BASH_VERSINFO[*]:0:2}"], capture_output=True, text=True)
        return tuple(map(int, version.stdout.split())) >= (4, 4)
    return shutil.which(shell) is not None


@pytest.fixture(params=RC)
def shell(request: pytest.FixtureRequest) -> str:
    if not _is_installed(request.param):
        pytest.skip(f"{request.param} is not installed, or too old")
    return request.param


@pytest.mark.parametrize(("typed", "completed"), LINES.items(), ids=LINES)
def test_tab_completes(shell: str, news_bank: Bank, tmp_path: Path, typed: str, completed: str):
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "costbank"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m costbank_cli "$@"\n')
    command.chmod(0o755)
    (tmp_path / "two.txt").touch()
    rc = tmp_path / ".zshrc"
    rc.write_text(RC[shell])
    environment = os.environ | {
        "COSTBANK_STORE": str(news_bank.path.parents[1]), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "TERM": "dumb", "COLUMNS": "500",
    }  # fmt: skip
    arguments = [argument.format(rc=rc) for argument in COMMANDS[shell]]
    assert _line_after_tab(arguments, environment, tmp_path, typed) == completed.format(id=news_bank.id)


def _line_after_tab(arguments: list[str], environment: dict[str, str], folder: Path, typed: str) -> str:
    """The line after TAB. It becomes the argument of `printf`, which prints it between brackets."""
    ours, terminal = pty.openpty()
    with subprocess.Popen(
        arguments, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, cwd=folder,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:  # fmt: skip
        os.close(terminal)
        try:
            _read_until(ours, re.compile("ready> "))
            # Shells process keys in order, so the keys after TAB wait for the completion.
            os.write(ours, f"{typed}\t'\x01printf '[%s]\\n' '\r".encode())
            printed = re.compile(r"[\r\n]\[([^\r\n]*)\]\r\n")
            output = _read_until(ours, printed)
            return match[1] if (match := printed.search(output)) else output
        finally:
            process.kill()
            os.close(ours)


def _read_until(descriptor: int, pattern: re.Pattern[str], seconds: float = 60) -> str:
    output, deadline = "", time.monotonic() + seconds
    with suppress(OSError):
        while not pattern.search(output) and time.monotonic() < deadline:
            output = ESCAPES.sub("", output + os.read(descriptor, 4096).decode("utf-8", "replace"))
    return output
