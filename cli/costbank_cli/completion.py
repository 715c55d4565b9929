"""Completion of arguments: banks, sources, settings and their values, files.

A completer has the signature of click's `shell_complete`. It imports no heavy library, and a missing or damaged store
has no completions. The `prefix` of an item for files or directories is the part of the word before the path.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from costbank_cli.choices import SOURCES

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = [
    "Completer",
    "complete_bank",
    "complete_bank_name",
    "complete_file",
    "complete_from",
    "complete_setting",
    "complete_stored_bank",
]

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_from(values: Iterable[str]) -> Completer:
    """A completer for a fixed list of values."""
    return lambda _ctx, _parameter, incomplete: _items(values, incomplete)


def complete_file(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def complete_bank(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The banks of the store: by name, and by name@id where a name has several banks or `@` is typed."""
    return _banks(ctx, incomplete)


def complete_stored_bank(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`complete_bank` for commands that take no path."""
    return _stored_banks(ctx, incomplete)


def complete_bank_name(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the store's banks."""
    return [item for item in _stored_banks(ctx, incomplete) if "@" not in item.value]


def complete_setting(among: Sequence[str] | None = None) -> Completer:
    """A completer for `KEY=VALUE`: the settings of the chosen source, then, after `=`, the values of the setting.

    Args:
        among: the settings that the command takes; None for all.
    """

    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from costbank.config import list_settings, settings

        path, equals, value = incomplete.partition("=")
        if equals:
            field = settings().get(path)
            return [] if field is None else list(_values(ctx, path, field, value))
        source = ctx.params.get("source")
        listed = list_settings(source if source in SOURCES else None)
        return [
            CompletionItem(f"{setting.path}=", help=setting.meaning)
            for setting in listed
            if setting.path.startswith(incomplete) and (among is None or setting.path in among)
        ]

    return complete


def _values(ctx: click.Context, path: str, field: "FieldInfo", value: str) -> Iterator[CompletionItem]:
    """The values of a setting, each with the setting in front: the shell completes the whole word."""
    from costbank.config.descriptions import accepted_values, choices
    from costbank.settings import Location, Reference

    if Reference in field.metadata:
        items = _banks(ctx, value)
    elif Location in field.metadata or accepted_values(field) == "a path":
        items = [CompletionItem(value, type="file")]
    else:
        items = _items(("true", "false") if accepted_values(field) == "true or false" else choices(field), value)
    for item in items:
        yield CompletionItem(f"{path}={item.value}", type=item.type, prefix=f"{path}=")


def _banks(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    if "/" in incomplete or incomplete.startswith((".", "~")):
        return [CompletionItem(incomplete, type="dir")]
    return _stored_banks(ctx, incomplete)


def _stored_banks(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    from costbank.bank.store import Store

    ids: dict[str, list[str]] = {}
    store = ctx.params.get("store")
    with suppress(OSError):
        for bank in Store(Path(store) if store else None).banks():
            ids.setdefault(bank.name, []).append(bank.id)
    names = [
        name
        for bank, own in ids.items()
        for name in (bank, *(f"{bank}@{bank_id}" for bank_id in own if len(own) > 1 or "@" in incomplete))
    ]
    return _items(names, incomplete)


def _items(values: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]
