"""What commands print: tables or one JSON document on stdout, progress and notes on stderr."""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from costbank.progress import Progress
    from costbank.vocab import TokenMatch, Vocab

__all__ = [
    "console_progress",
    "json_option",
    "note",
    "note_other_match",
    "print_facts",
    "print_json",
    "print_table",
    "store_option",
]

_PIPE_WIDTH = 10_000

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def json_option(function: Decorated) -> Decorated:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")(function)


def store_option(function: Decorated) -> Decorated:
    """The option `--store`, which refuses a file before the command starts."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path),
        callback=_checked_store,
        help="Directory of banks. [default: $COSTBANK_STORE or the platform's data directory]",
    )(function)


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print a table as wide as the terminal, or, in a pipe, as wide as its cells.

    Args:
        right: the columns that are aligned right.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_plain, row))
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table, markup=False, highlight=False)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def print_facts(facts: dict[str, object]) -> None:
    """Print names and values, one pair per line."""
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")


def note(text: str) -> None:
    """Print a note on stderr."""
    click.echo(f"note: {text}", err=True)


def note_other_match(vocab: "Vocab", match: "TokenMatch") -> None:
    """If the text matches a second token, print a note with the name to type for that one."""
    if match.other is not None:
        name, shown = vocab.name_of(match.other), vocab.display(match.id)
        note(f"using {shown} (id {match.id}); the same text also matches {name} (id {match.other})")


def console_progress() -> "Progress":
    """Progress bars if stderr is a terminal, else log lines."""
    from costbank.progress import LogProgress, TerminalProgress

    if sys.stderr.isatty():
        from rich.console import Console

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


def _checked_store(ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    from costbank.bank.store import Store

    if not ctx.resilient_parsing:
        Store(value).check()
    return value
