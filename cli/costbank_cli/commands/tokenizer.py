"""`costbank tokenizer train`."""

from pathlib import Path
from typing import Literal

import click

from costbank_cli.output import json_option, print_json, progress_for_people

__all__ = ["command"]


@click.group("tokenizer")
def command() -> None:
    """Make a tokenizer."""


@command.command("train")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .model file to write.")
@click.option("--vocab-size", default=16_000, show_default=True, help="Number of pieces.")
@click.option("--type", "model_type", type=click.Choice(["unigram", "bpe"]), default="unigram", show_default=True)
@click.option("--byte-fallback/--no-byte-fallback", default=True, show_default=True, help="Add the 256 byte pieces.")
@json_option
def train(
    files: tuple[Path, ...],
    out: Path,
    vocab_size: int,
    model_type: Literal["unigram", "bpe"],
    byte_fallback: bool,
    as_json: bool,
) -> None:
    """Train a SentencePiece tokenizer on text FILEs, each line a sentence."""
    from costbank.tokenizers import load_tokenizer
    from costbank.tokenizers.train import train_sentencepiece

    with progress_for_people().step(f"train a {model_type} tokenizer"):
        train_sentencepiece(files, out, vocab_size, model_type, byte_fallback)
    vocab = load_tokenizer(out).vocab
    if as_json:
        print_json({"path": str(out), "vocab": vocab.size, "fingerprint": vocab.fingerprint})
        return
    click.echo(f"{out}  {vocab.size:,} pieces  fingerprint {vocab.fingerprint[:16]}…")
