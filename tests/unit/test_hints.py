"""Every command, option and setting exists that the source or the documentation names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from costbank_cli.command_line import COMMANDS, command_line

from costbank.config import settings

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("costbank", "cli", "service") for path in (ROOT / room).rglob("*.py"))
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("costbank/**/*.md")]
)

COMMAND = re.compile(
    r"(?P<before>`|^ {4,}|\$ |: |; |, |\bor |\bsee |\A)costbank (?P<name>[a-z][\w-]*(?: train)?)(?P<rest>[^\n`;]*)",
    re.M,
)
"""Places where the library's name begins a command and is not the subject of a sentence."""

OPTION = re.compile(r"(?<![\w-])--[a-zA-Z][\w-]*")
SETTING = re.compile(r"--set(?:[ =]|=?['\"])+([a-z_0-9]+(?:\.[a-z_0-9]+)*)=")
NO_COMMANDS = {"encoded", "draws", "pair", "error", "vocabulary"}
"""Words that follow the library's name in titles and in hashed texts."""

FOREIGN = {
    "--num-cpus",  # ray start
    "--no-files", "--keep-order", "--command", "--arguments",  # complete, in fish
    "--logdir", "--text", "--vector", "--neighbors",  # tensorboard, embedding-atlas
    "--nproc-per-node", "--index-url", "--data-urlencode",
    "--other", "--split", "--arms", "--seeds", "--rows", "--encoder",  # python -m benchmarks.study
    "--include", "--revision",  # hf download
    "--external_plugins", "--external", "--loss_type", "--loss_scale",  # ms-swift
    "--enable_dft_loss", "--enable_channel_loss",
    "--module", "--config", "--hf_assets_path", "--loss",  # torchtitan
    "--build", "--detach", "--constraint", "--system", "--no-create-home", "--now",  # docker, pip, useradd, systemctl
}  # fmt: skip
"""Options of other tools that our texts name."""


def _commands() -> dict[str, click.Command]:
    commands: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = command_line.get_command(click.Context(command_line), name)
        assert command is not None
        commands[name] = command
        for leaf, inner in getattr(command, "commands", {}).items():
            commands[f"{name} {leaf}"] = inner
    return commands


def _options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help", "--version",
    }  # fmt: skip


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Every text that a user can read, with its location."""
    content = path.read_text("utf-8")
    if path.suffix == ".md":
        for number, line in enumerate(content.splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", f" {line}"
        return
    tree = ast.parse(content)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.JoinedStr):
            parts = (str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
            yield place, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield place, node.value


def _faults(text: str) -> Iterator[str]:
    commands = _commands()
    every = set().union(*map(_options, commands.values()))
    for match in COMMAND.finditer(text):
        name = match["name"]
        if name not in commands and name.split()[0] not in commands:
            if name not in NO_COMMANDS:
                yield f"there is no command costbank {name}"
            continue
        command = commands.get(name, commands.get(name.split()[0]))
        assert command is not None
        own = _options(command).union(*(_options(inner) for inner in getattr(command, "commands", {}).values()))
        yield from (f"costbank {name} has no {o}" for o in OPTION.findall(match["rest"]) if o not in own | FOREIGN)
    yield from (f"no command has {option}" for option in OPTION.findall(text) if option not in every | FOREIGN)
    known = {*settings(), "name", "train_tokens", "eval_tokens"}  # the last two are of python -m benchmarks.study
    yield from (f"there is no setting {path}" for path in SETTING.findall(text) if path not in known)


@pytest.mark.slow
@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_in_a_text_exists(path: Path):
    faults = [f"{place}: {fault}" for place, text in _texts(path) for fault in _faults(text)]
    assert faults == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("copy it, or `costbank fetch` it", "there is no command costbank fetch"),
        ("costbank build --epochs 3", "costbank build has no --epochs"),
        ("see --no-such-option", "no command has --no-such-option"),
        ("with --set word2vec.epoch=3", "there is no setting word2vec.epoch"),
        ("costbank tokenizer train x --outt y", "costbank tokenizer train has no --outt"),
    ],
)
def test_the_check_finds_names_that_do_not_exist(text: str, fault: str):
    assert fault in list(_faults(text))
