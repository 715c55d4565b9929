"""`costbank export BANK`."""

from pathlib import Path
from typing import Literal

import click

from costbank_cli.output import json_option, note, print_json, progress_for_people, store_option

__all__ = ["command"]


@click.command("export")
@click.argument("bank")
@click.option(
    "--format",
    "format_name",
    required=True,
    metavar="FORMAT",
    help="sentence-transformers, model2vec, word2vec-text, word2vec-binary, npy, tensorboard, parquet, costs-npy.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file or folder to make.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The tokenizer that the bank was made with, for sentence-transformers and model2vec.",
)
@click.option(
    "--dtype", type=click.Choice(["F32", "F16"]), default="F32", show_default=True, help="Of the costs in costs-npy."
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
    """Write a bank as files that other tools open.

    \b
    costbank export my-bank --format word2vec-binary --out my-bank.bin
    costbank export my-bank --format model2vec --tokenizer my.model --out my-model2vec
    costbank export my-bank --format costs-npy --dtype F16 --out costs.npy

    Nothing may be at the place given. Rows are written as float32.
    """
    from costbank.bank import open_bank
    from costbank.export import export_bank

    opened = open_bank(bank, store)
    made = export_bank(opened, format_name, out, tokenizer, dtype, progress_for_people())
    if as_json:
        print_json(
            {
                "bank": opened.name,
                "id": opened.id,
                "format": made.format,
                "path": str(made.path),
                "files": [str(path) for path in made.files],
                "size": made.size,
                "rows": made.rows,
                "left_out": made.left_out,
            }
        )
        return
    click.echo(f"{made.path}  {made.format}, {made.rows:,} tokens, {made.size / 1e6:,.1f} MB")
    for path in made.files:
        if path != made.path and made.path not in path.parents:
            note(f"{path} says what its rows stand for")
