"""`costbank rm BANK...`."""

from pathlib import Path

import click

from costbank_cli.completion import complete_stored_bank
from costbank_cli.output import json_option, print_json, store_option
from costbank_cli.removals import dry_run_option, print_removal, removal_document

__all__ = ["command"]


@click.command("rm")
@click.argument("banks", nargs=-1, required=True, metavar="BANK...", shell_complete=complete_stored_bank)
@click.option("--all", "every", is_flag=True, help="Remove all banks of each name; BANK is then a name.")
@dry_run_option
@store_option
@json_option
def command(banks: tuple[str, ...], every: bool, dry_run: bool, store: Path | None, as_json: bool) -> None:
    """Remove banks from a store.

    \b
    costbank rm my-bank@00d1cfdac0c85487
    costbank rm my-bank --all --dry-run

    BANK is name@idprefix, or the name of a single bank; a name with several banks is refused without --all. If the
    latest bank of a name is removed, the name means the newest one that remains. A process that has opened a bank
    keeps what it has read or mapped. What killed builds left under the same names is removed too.
    """
    from costbank.bank import remove_banks

    removal = remove_banks(banks, store, every=every, dry_run=dry_run)
    if as_json:
        print_json(removal_document(removal, dry_run))
    else:
        print_removal(removal, dry_run)
