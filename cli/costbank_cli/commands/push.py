"""`costbank push BANK URL`."""

from pathlib import Path

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import console_progress, json_option, print_json, store_option

__all__ = ["command"]


@click.command("push")
@click.argument("bank", shell_complete=complete_bank)
@click.argument("url")
@store_option
@json_option
def command(bank: str, url: str, store: Path | None, as_json: bool) -> None:
    """Copy a bank to a bucket or the Hub.

    \b
    costbank push my-bank s3://bucket/banks/my-bank
    costbank push my-bank hf://organization/repository

    The bank is verified first, and others can open it only when all of it is there. A costbank service is read-only;
    to serve the bank, copy it into the service's store.
    """
    from costbank.bank import Store
    from costbank.remote import push_bank

    pushed = push_bank(Store(store).resolve(bank), url, progress=console_progress())
    if as_json:
        print_json({"url": pushed})
    else:
        click.echo(pushed)
