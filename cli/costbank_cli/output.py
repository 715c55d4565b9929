"""What commands print: tables for people, one JSON document for programs, progress on the other stream."""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from costbank.progress import LogProgress, Progress, TerminalProgress

if TYPE_CHECKING:
    from costbank.vocab import TokenMatch, Vocab

__all__ = [
    "facts_table",
    "json_option",
    "note",
    "note_other_reading",
    "print_json",
    "print_table",
    "progress_for_people",
    "store_option",
]

_WIDE = 10_000

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def json_option(function: Decorated) -> Decorated:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(function)


def store_option(function: Decorated) -> Decorated:
    return click.option(
        "--store",
        type=click.Path(path_type=Path),
        help="Directory of banks. [default: $COSTBANK_STORE, else the platform's data directory]",
    )(function)


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """A table on stdout, as wide as the terminal; through a pipe no cell is cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_plain, row))
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE, color_system=None)
    with console.capture() as captured:
        console.print(table, markup=False, highlight=False)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def facts_table(facts: dict[str, object]) -> None:
    """Names and values, one a line."""
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")


def note(text: str) -> None:
    """A remark to the person, on stderr."""
    click.echo(f"note: {text}", err=True)


def note_other_reading(vocab: "Vocab", match: "TokenMatch") -> None:
    """Name the other token that a text may mean, and how to ask for it."""
    if match.other is not None:
        name, shown = vocab.name_of(match.other), vocab.display(match.id)
        note(f"{shown} (id {match.id}) was taken; the same text also names {name} (id {match.other})")


def progress_for_people() -> Progress:
    """Bars where stderr is a terminal, lines where it is not."""
    if sys.stderr.isatty():
        return TerminalProgress(Console(stderr=True))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("costbank")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return LogProgress()


def _plain(value: object) -> Any:
    from rich.text import Text

    return Text(f"{value:.4f}" if isinstance(value, float) else str(value))
