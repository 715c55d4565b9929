"""`costbank cache show` and `costbank cache clear`."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from costbank_cli.choices import CACHE_KINDS
from costbank_cli.completion import complete_from
from costbank_cli.output import json_option, print_json, print_table
from costbank_cli.removals import dry_run_option, shown_bytes

if TYPE_CHECKING:
    from costbank.caches import KindContents

__all__ = ["command"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _cache_option(function: Decorated) -> Decorated:
    return click.option(
        "--cache", type=click.Path(path_type=Path),
        help="Directory of encoded text. [default: $COSTBANK_CACHE or the platform's cache directory]",
    )(function)  # fmt: skip


@click.group("cache")
def command() -> None:
    """Show or clear what is cached on this machine."""


@command.command("show")
@_cache_option
@json_option
def show(cache: Path | None, as_json: bool) -> None:
    """Show what is cached: kinds, sizes, and when each was last used.

    \b
    costbank cache show

    The last use is the last time when a file was read or written, as far as the file system records it.
    """
    from costbank.caches import cache_contents

    contents = cache_contents(cache)
    if as_json:
        print_json(
            [_document(one) | {"last_used": _time(one.last_used), "meaning": one.kind.meaning} for one in contents]
        )
        return
    rows = [
        (one.kind.name, f"{len(one.entries):,}", f"{one.bytes / 1e6:,.1f}", _time(one.last_used) or "", one.directory)
        for one in contents
    ]
    print_table(("kind", "entries", "MB", "last used", "directory"), rows, right=("entries", "MB"))


@command.command("clear")
@click.argument("kinds", nargs=-1, metavar="[KIND]...", shell_complete=complete_from(CACHE_KINDS))
@click.option("--older-than", type=float, default=0, metavar="DAYS", help="Keep what was used within DAYS days.")
@dry_run_option
@_cache_option
@json_option
def clear(kinds: tuple[str, ...], older_than: float, dry_run: bool, cache: Path | None, as_json: bool) -> None:
    """Remove what is cached; later builds make it again.

    \b
    costbank cache clear --older-than 30
    costbank cache clear pair-counts --dry-run

    KIND is a kind that costbank cache show lists; without one, all kinds are cleared. A cache that a running build uses
    is refused.
    """
    from costbank.caches import clear_cache

    cleared = clear_cache(cache, kinds, older_than=older_than, dry_run=dry_run)
    total = sum(one.bytes for one in cleared)
    if as_json:
        print_json({"dry_run": dry_run, "removed": [_document(one) for one in cleared], "bytes": total})
        return
    verb = "would remove" if dry_run else "removed"
    for one in cleared:
        if one.entries:
            click.echo(f"{verb} {len(one.entries):,} of {one.kind.name} in {one.directory}, {shown_bytes(one.bytes)}")
    click.echo(f"{'would free' if dry_run else 'freed'} {shown_bytes(total)}")


def _document(contents: "KindContents") -> dict[str, Any]:
    return {
        "kind": contents.kind.name,
        "directory": str(contents.directory),
        "entries": len(contents.entries),
        "bytes": contents.bytes,
    }


def _time(used: datetime | None) -> str | None:
    return used.isoformat(timespec="seconds") if used else None
