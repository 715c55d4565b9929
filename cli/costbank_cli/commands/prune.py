"""`costbank prune [NAME] --keep N`."""

from pathlib import Path

import click

from costbank_cli.completion import complete_bank_name
from costbank_cli.output import json_option, print_json, store_option
from costbank_cli.removals import dry_run_option, print_removal, removal_document

__all__ = ["command"]


@click.command("prune")
@click.argument("name", required=False, shell_complete=complete_bank_name)
@click.option("--keep", required=True, type=click.IntRange(min=1), metavar="N", help="Number of banks to keep.")
@dry_run_option
@store_option
@json_option
def command(name: str | None, keep: int, dry_run: bool, store: Path | None, as_json: bool) -> None:
    """Remove all but the newest banks of each name.

    \b
    costbank prune --keep 2 --dry-run
    costbank prune my-bank --keep 1

    The newest are those whose manifests have the latest times. The bank that a name means is always kept. What killed
    builds left is removed too.
    """
    from costbank.bank import prune_banks

    removal = prune_banks(keep, name, store, dry_run=dry_run)
    if as_json:
        print_json(removal_document(removal, dry_run))
    else:
        print_removal(removal, dry_run)
