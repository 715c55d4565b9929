"""`costbank pull URL`."""

from pathlib import Path

import click

from costbank_cli.interrupts import interruption_keeps
from costbank_cli.output import console_progress, json_option, print_json, store_option

__all__ = ["command"]


@click.command("pull")
@click.argument("url")
@click.option("--name", metavar="NAME", help="Name of the bank in the store. [default: the name in the URL]")
@store_option
@json_option
def command(url: str, name: str | None, store: Path | None, as_json: bool) -> None:
    """Copy a bank from a server, a bucket or the Hub into the store.

    \b
    costbank pull http://host:8137/v1/banks/my-bank
    costbank pull s3://bucket/banks/my-bank@3fa9
    costbank pull hf://organization/repository --name my-bank

    Every file is verified before the bank appears in the store, where it becomes the latest of its name. After an
    interruption, the same command continues the download. A costbank service gets the key in $COSTBANK_API_KEY.
    """
    from costbank.remote import pull_bank

    interruption_keeps("the same command continues the download")
    bank = pull_bank(url, name, store, progress=console_progress())
    if as_json:
        print_json({"name": bank.name, "id": bank.id, "path": str(bank.path), "url": url})
    else:
        click.echo(f"{bank.name}@{bank.id}  {bank.path}")
