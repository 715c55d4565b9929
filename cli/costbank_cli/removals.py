"""What the commands that remove banks print."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from costbank_cli.output import note

if TYPE_CHECKING:
    from costbank.bank.removal import Removal

__all__ = ["dry_run_option", "print_removal", "removal_document", "shown_bytes"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def dry_run_option(function: Decorated) -> Decorated:
    return click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")(function)


def print_removal(removal: "Removal", dry_run: bool) -> None:
    """Print a line for each bank and each leftover, where `latest` moved, and the sum of the bytes."""
    verb = "would remove" if dry_run else "removed"
    for bank in removal.banks:
        click.echo(f"{verb} {bank.name}@{bank.id}, {shown_bytes(bank.bytes)}")
    for leftover in removal.leftovers:
        click.echo(f"{verb} {leftover.path}, {shown_bytes(leftover.bytes)}, left by a killed process")
    for name, bank_id in removal.latest.items():
        if bank_id is not None:
            click.echo(f"{name} {'would then mean' if dry_run else 'now means'} {name}@{bank_id}")
    for bank in removal.undated:
        note(f"kept {bank.name}@{bank.id}: its manifest is damaged; `costbank rm {bank.name}@{bank.id}` removes it")
    click.echo(f"{'would free' if dry_run else 'freed'} {shown_bytes(removal.bytes)}")


def removal_document(removal: "Removal", dry_run: bool) -> dict[str, Any]:
    """The same as a JSON document."""
    return {
        "dry_run": dry_run,
        "banks": [{"name": bank.name, "id": bank.id, "bytes": bank.bytes} for bank in removal.banks],
        "leftovers": [{"path": str(leftover.path), "bytes": leftover.bytes} for leftover in removal.leftovers],
        "latest": removal.latest,
        "kept_damaged": [f"{bank.name}@{bank.id}" for bank in removal.undated],
        "bytes": removal.bytes,
    }


def shown_bytes(count: int) -> str:
    """A number of bytes for a person: in bytes below 1 MB, else in MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1_000_000 else f"{count:,} bytes"
