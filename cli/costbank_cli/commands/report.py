"""`costbank report BANK [OTHER]`."""

from pathlib import Path

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import console_progress, json_option, print_json, store_option

__all__ = ["command"]


@click.command("report")
@click.argument("bank", shell_complete=complete_bank)
@click.argument("other", required=False, shell_complete=complete_bank)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HTML file to create.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@store_option
@json_option
def command(bank: str, other: str | None, out: Path, force: bool, store: Path | None, as_json: bool) -> None:
    """Write a bank's charts, health and neighbors as one HTML file.

    \b
    costbank report my-bank --out my-bank.html
    costbank report my-bank other-bank --out both.html --force

    The page says what the bank is and how good its vectors are. It has charts of costs, frequency and hubs, the map of
    the tokens if the bank has one, and a sample of tokens with their neighbors. With OTHER, it also has what
    `costbank compare` shows. The file needs no network, and the same banks give the same file
    (with one version of Plotly).
    """
    from costbank import open_bank
    from costbank.analysis.report import write_report

    first = open_bank(bank, store)
    second = open_bank(other, store) if other else None
    written = write_report(first, out, second, force=force, progress=console_progress())
    if as_json:
        compared = {"bank": second.name, "id": second.id} if second else None
        print_json({"bank": first.name, "id": first.id, "other": compared, "path": str(written.path),
                    "size": written.size})  # fmt: skip
        return
    click.echo(f"{written.path}  {written.size / 1e6:,.1f} MB; open it in a browser")
