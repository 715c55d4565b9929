"""`costbank export BANK`."""

from pathlib import Path
from typing import Literal

import click

from costbank_cli.choices import EXPORT_FORMATS
from costbank_cli.completion import complete_bank, complete_from
from costbank_cli.output import console_progress, json_option, note, print_json, store_option

__all__ = ["command"]


@click.command("export")
@click.argument("bank", shell_complete=complete_bank)
@click.option(
    "--format",
    "format_name",
    required=True,
    metavar="FORMAT",
    shell_complete=complete_from(EXPORT_FORMATS),
    help=f"{', '.join(EXPORT_FORMATS)}.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File or folder to create.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Tokenizer that the bank was built with (formats sentence-transformers and model2vec).",
)
@click.option(
    "--dtype",
    type=click.Choice(["F32", "F16"]),
    default="F32",
    show_default=True,
    help="Element type of the costs (format costs-npy).",
)
@store_option
@json_option
def command(
    bank: str,
    format_name: str,
    out: Path,
    tokenizer: Path | None,
    dtype: Literal["F32", "F16"],
    store: Path | None,
    as_json: bool,
) -> None:
    """Write a bank as files that other tools can open.

    \b
    costbank export my-bank --format word2vec-binary --out my-bank.bin
    costbank export my-bank --format model2vec --tokenizer my.model --out my-model2vec
    costbank export my-bank --format costs-npy --dtype F16 --out costs.npy

    Existing files are never overwritten. Rows are written as float32.
    """
    from costbank import open_bank
    from costbank.export import export_bank

    opened = open_bank(bank, store)
    exported = export_bank(opened, format_name, out, tokenizer, dtype, console_progress())
    if as_json:
        print_json(
            {
                "bank": opened.name,
                "id": opened.id,
                "format": exported.format,
                "path": str(exported.path),
                "files": [str(path) for path in exported.files],
                "size": exported.size,
                "rows": exported.rows,
                "left_out": exported.left_out,
            }
        )
        return
    click.echo(f"{exported.path}  {exported.format}, {exported.rows:,} tokens, {exported.size / 1e6:,.1f} MB")
    for path in exported.files:
        if path != exported.path and exported.path not in path.parents:
            note(f"{path} lists the token of each row")
