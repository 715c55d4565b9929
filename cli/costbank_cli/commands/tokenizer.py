"""`costbank tokenizer train`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from costbank_cli.choices import ON_ERROR
from costbank_cli.completion import complete_file, complete_from, complete_setting
from costbank_cli.output import console_progress, json_option, print_json

if TYPE_CHECKING:
    from costbank.config import CorpusConfig

__all__ = ["command"]

_SETTINGS = ("corpus.format", "corpus.documents", "corpus.text_field", "corpus.on_error")
"""The settings that say how text is read."""

_MOST_FILES_SHOWN = 3


@click.group("tokenizer")
def command() -> None:
    """Train a tokenizer."""


@command.command("train")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", shell_complete=complete_file)
@click.option("--out", required=True, type=click.Path(path_type=Path), help=".model file to write.")
@click.option("--vocab-size", default=16_000, show_default=True, help="Vocabulary size, in pieces.")
@click.option("--type", "model_type", type=click.Choice(["unigram", "bpe"]), default="unigram", show_default=True,
              help="Algorithm.")  # fmt: skip
@click.option(
    "--byte-fallback/--no-byte-fallback", default=True, show_default=True, help="Add 256 pieces for single bytes."
)
@click.option(
    "--on-error", metavar="|".join(ON_ERROR), shell_complete=complete_from(ON_ERROR),
    help="What to do with unreadable records. [default: refuse]",
)  # fmt: skip
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", shell_complete=complete_setting(_SETTINGS),
    help=f"How text is read: {', '.join(_SETTINGS)}.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Overwrite an existing file.")
@json_option
def train(
    files: tuple[str, ...],
    out: Path,
    vocab_size: int,
    model_type: Literal["unigram", "bpe"],
    byte_fallback: bool,
    on_error: str | None,
    assignments: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a SentencePiece tokenizer on text, one sentence per line.

    FILE is anything that costbank build --corpus takes, except token ids: text, JSON Lines or Parquet, also as .gz or
    .zst; a folder, a pattern, a URL, or - for standard input.

    \b
    costbank tokenizer train corpus/ 'more/**/*.jsonl.gz' --out my.model --vocab-size 16000
    costbank tokenizer train docs.jsonl --set corpus.text_field=body --out my.model
    """
    from costbank.corpus.readers import ReadOptions
    from costbank.corpus.tokenizer_training import TrainingText, train_tokenizer
    from costbank.tokenizers import load_tokenizer
    from costbank.tokenizers.train import TrainingOptions

    corpus = _corpus_settings(files, on_error, assignments)
    text = TrainingText(corpus.files, corpus.format, ReadOptions(corpus.documents, corpus.text_field), corpus.on_error)
    options = TrainingOptions(vocab_size, model_type, byte_fallback)
    train_tokenizer(text, out, options, console_progress(), overwrite)
    vocab = load_tokenizer(out).vocab
    if as_json:
        print_json({"path": str(out), "vocab": vocab.size, "fingerprint": vocab.fingerprint})
        return
    click.echo(f"{out}  {vocab.size:,} pieces  fingerprint {vocab.fingerprint[:16]}…")
    click.echo(f"next: {_next_command(files, assignments, on_error, out)}")


def _corpus_settings(files: Sequence[str], on_error: str | None, assignments: Sequence[str]) -> "CorpusConfig":
    from costbank.config import CorpusBuild, load_config
    from costbank.errors import UsageError

    for assignment in assignments:
        if (name := assignment.partition("=")[0].strip()) not in _SETTINGS:
            raise UsageError(
                f"{name} is not a setting of tokenizer training", f"the settings are {', '.join(_SETTINGS)}"
            )
    settings = {"source": "word2vec", "corpus.files": list(files)} | ({"corpus.on_error": on_error} if on_error else {})
    config = load_config(settings, assignments)
    assert isinstance(config, CorpusBuild)
    return config.corpus


def _next_command(files: Sequence[str], assignments: Sequence[str], on_error: str | None, out: Path) -> str:
    """The command that builds a bank from the same text."""
    shown = "FILE..." if len(files) > _MOST_FILES_SHOWN else shlex.join(files)
    reading = [part for assignment in assignments for part in ("--set", assignment)]
    reading += ["--on-error", on_error] if on_error else []
    options = ["--tokenizer", str(out), *reading]
    return f"costbank build --source cooccurrence --corpus {shown} {shlex.join(options)}"
