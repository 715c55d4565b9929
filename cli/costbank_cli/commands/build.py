"""`costbank build`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costbank_cli.output import json_option, print_json, progress_for_people, store_option

if TYPE_CHECKING:
    from costbank.config import BuildConfig

__all__ = ["command"]


_SETTINGS = {
    "corpus": ("corpus.files",),
    "sampling": ("corpus.sampling",),
    "on_error": ("corpus.on_error",),
    "engine": ("engine.kind",),
    "processes": ("engine.processes",),
    "memory": ("engine.memory",),
    "ray_address": ("engine.ray_address",),
    "model": ("lm_head.model",),
    "accept_other_tokenizer": ("lm_head.accept_other_tokenizer",),
    "tensor": ("lm_head.tensor", "vector_file.tensor"),
    "vectors": ("vector_file.path",),
    "donor": ("transfer.donor",),
}
"""Which setting an option stands for, where it is not called as its setting; of several, the source's."""


class _ManyFiles(click.Command):
    """Lets one `--corpus` take all the files that follow it, as a shell's glob gives them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread, given = [], None
        for argument in [*args, "--"]:
            if given is not None and (argument == "-" or not argument.startswith("-")):
                given += 1
                spread += ["--corpus", argument]
                continue
            if given == 0:
                raise click.BadOptionUsage("--corpus", "--corpus names no file", ctx)
            given = 0 if argument == "--corpus" else None
            spread += [argument] if given is None else []
        return super().parse_args(ctx, spread[:-1])


def _without_table(config: "BuildConfig") -> "BuildConfig":
    """The config with `neighbors.k` = 0, unless it names another k."""
    from costbank.errors import UsageError

    if config.neighbors.k:
        raise UsageError(
            f"--for-training leaves out the neighbor table, and neighbors.k asks for one of {config.neighbors.k}",
            "give one of the two",
        )
    return config.model_copy(update={"neighbors": config.neighbors.model_copy(update={"k": 0})})


@click.command("build", cls=_ManyFiles)
@click.option(
    "--source", help="Where vectors come from: word2vec, cooccurrence, lm-head, vocabulary, vectors, transfer."
)
@click.option(
    "--corpus",
    "files",
    multiple=True,
    metavar="FILE...",
    help="Files, folders, patterns or URLs to learn from, or - for standard input.",
)
@click.option("--sampling", metavar="ALPHA", help="Draw segmentations at random, rather than take the best.")
@click.option("--on-error", metavar="refuse|skip", help="What to do with unreadable records. [default: refuse]")
@click.option("--engine", metavar="local|ray", help="Who reads and counts the corpus. [default: local]")
@click.option("--processes", metavar="N", help="Number of parallel workers. [default: one per core]")
@click.option("--memory", metavar="SIZE", help="For counting on one machine, as 4GB. [default: half of it]")
@click.option("--ray-address", metavar="ADDRESS", help="A running Ray cluster. [default: one is started here]")
@click.option("--model", metavar="PATH", help="Model folder or file of weights, for lm-head.")
@click.option("--tensor", metavar="NAME", help="Tensor to use instead of the LM head.")
@click.option("--vectors", metavar="FILE", help="word2vec, GloVe, .npy or .safetensors file, for vectors.")
@click.option("--donor", metavar="BANK", help="Bank of another tokenizer, for transfer.")
@click.option("--tokenizer", metavar="FILE", help="The tokenizer whose ids the bank is for. [default: the model's]")
@click.option(
    "--accept-other-tokenizer", is_flag=True, default=None, help="Take a --tokenizer that is not the model's own."
)
@click.option(
    "--for-training", is_flag=True, help="Leave out the neighbor table and the index, which dense costs do not use."
)
@click.option("--name", help="The bank's name. [default: the tokenizer's or the model's name, and the source]")
@store_option
@click.option("--cache", type=click.Path(), help="Directory of encoded text. [default: $COSTBANK_CACHE]")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting, as word2vec.epochs=10.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml", help="Settings from a TOML file.")
@json_option
def command(
    files: tuple[str, ...],
    assignments: tuple[str, ...],
    config: Path | None,
    for_training: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Build a bank from a source of vectors.

    \b
    costbank build --source word2vec --corpus text/*.txt --tokenizer my.model --name my-bank
    costbank build --source cooccurrence --corpus corpus/ --tokenizer my.model
    costbank build --source lm-head --model path/to/model-folder --name my-model --for-training
    costbank build --source vocabulary --tokenizer tokenizer.json
    costbank build --source vectors --vectors glove.txt --tokenizer tokenizer.json
    costbank build --source transfer --donor my-bank --tokenizer other.json
    costbank build --config my.toml --set word2vec.epochs=10

    `costbank settings` lists all settings and their defaults. They may stand in a TOML file; the command line overrides
    it, and --set overrides the other options.
    """
    from costbank.config import load_config
    from costbank.pipeline import build

    options = {name: value for name, value in given.items() if value is not None}
    if files:
        options["corpus"] = list(files)
    chosen = {_SETTINGS.get(name, (name,)): value for name, value in options.items()}
    asked = load_config(chosen, assignments, config)
    if for_training:
        asked = _without_table(asked)
    bank = build(asked, progress_for_people())
    if as_json:
        print_json({"name": bank.name, "id": bank.id, "path": str(bank.path), "facts": bank.manifest.facts})
        return
    click.echo(f"{bank.name}@{bank.id}  {bank.size:,} tokens × {bank.dim}  {bank.path}")
