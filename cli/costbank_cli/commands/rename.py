"""`costbank rename OLD NEW`."""

from pathlib import Path

import click

from costbank_cli.completion import complete_bank_name
from costbank_cli.output import json_option, print_json, store_option
from costbank_cli.removals import dry_run_option, print_removal, removal_document

__all__ = ["command"]


@click.command("rename")
@click.argument("old", shell_complete=complete_bank_name)
@click.argument("new")
@dry_run_option
@store_option
@json_option
def command(old: str, new: str, dry_run: bool, store: Path | None, as_json: bool) -> None:
    """Rename a name with all its banks.

    \b
    costbank rename my-bank my-older-bank

    NEW must not be in use. Ids and files stay the same, so a reference such as my-bank@00d1cfda becomes
    my-older-bank@00d1cfda. What killed builds left under both names is removed.
    """
    from costbank.bank import Store, rename_banks

    removal = rename_banks(old, new, store, dry_run=dry_run)
    banks = Store(store).banks_of(old if dry_run else new)
    if as_json:
        document = removal_document(removal, dry_run)
        renamed = {"old": old, "new": new, "ids": [bank.id for bank in banks]}
        print_json(renamed | {key: document[key] for key in ("dry_run", "leftovers", "bytes")})
        return
    for bank in banks:
        click.echo(f"{'would rename' if dry_run else 'renamed'} {old}@{bank.id} to {new}@{bank.id}")
    print_removal(removal, dry_run)
