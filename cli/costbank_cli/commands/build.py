"""`costbank build`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from costbank_cli.choices import ENGINES, ON_ERROR, SOURCES
from costbank_cli.completion import complete_bank, complete_file, complete_from, complete_setting
from costbank_cli.output import console_progress, json_option, print_json, store_option

if TYPE_CHECKING:
    from costbank.config import BuildConfig

__all__ = ["command"]

_FILES_FOLLOW = f"{__name__}.files_follow"

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
    "tensor": ("lm_head.tensor", "vectors.tensor"),
    "vectors": ("vectors.path",),
    "donor": ("transfer.donor",),
    "map": ("map.make",),
}
"""The setting of each option whose name differs from its setting's; of several, that of the chosen source is set."""


class _ManyFilesCommand(click.Command):
    """Lets one `--corpus` take all the files after it, because a shell expands a pattern to several arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        expanded, files = [], None
        for argument in args:
            if files is not None and (argument == "-" or not argument.startswith("-")):
                files += 1
                expanded += ["--corpus", argument]
                continue
            _refuse_no_files(files, ctx)
            files = 0 if argument == "--corpus" else None
            expanded += [argument] if files is None else []
        _refuse_no_files(files, ctx)
        ctx.meta[_FILES_FOLLOW] = files is not None
        return super().parse_args(ctx, expanded)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if ctx.meta[_FILES_FOLLOW] and not incomplete.startswith("-"):
            return [CompletionItem(incomplete, type="file")]
        return super().shell_complete(ctx, incomplete)


def _refuse_no_files(files: int | None, ctx: click.Context) -> None:
    if files == 0 and not ctx.resilient_parsing:
        raise click.BadOptionUsage("--corpus", "--corpus needs at least one file", ctx)


def _without_table(config: "BuildConfig") -> "BuildConfig":
    """The config with `neighbors.k` = 0, unless it names another k."""
    from costbank.errors import UsageError

    if config.neighbors.k:
        raise UsageError(
            f"--for-training omits the neighbor table, but neighbors.k is {config.neighbors.k}",
            "omit --for-training to keep the table, or set neighbors.k=0",
        )
    return config.model_copy(update={"neighbors": config.neighbors.model_copy(update={"k": 0})})


@click.command("build", cls=_ManyFilesCommand)
@click.option(
    "--source", metavar="SOURCE", shell_complete=complete_from(SOURCES),
    help=f"Where the vectors come from: {', '.join(SOURCES)}.",
)  # fmt: skip
@click.option(
    "--corpus",
    "files",
    multiple=True,
    metavar="FILE...",
    shell_complete=complete_file,
    help="Text to learn from: files, folders, patterns, URLs, or - for standard input.",
)
@click.option("--sampling", metavar="ALPHA", help="Sample segmentations instead of taking the best one.")
@click.option(
    "--on-error",
    metavar="|".join(ON_ERROR),
    shell_complete=complete_from(ON_ERROR),
    help="What to do with unreadable records. [default: refuse]",
)
@click.option(
    "--engine",
    metavar="|".join(ENGINES),
    shell_complete=complete_from(ENGINES),
    help="Where the corpus is read and counted: on this machine or on a Ray cluster. [default: local]",
)
@click.option("--processes", metavar="N", help="Number of parallel workers. [default: one per core]")
@click.option("--memory", metavar="SIZE", help="Memory for counting, such as 4GB. [default: half of this machine's]")
@click.option("--ray-address", metavar="ADDRESS", help="Address of a running Ray cluster. [default: start one here]")
@click.option(
    "--model",
    metavar="MODEL",
    shell_complete=complete_file,
    help="Model folder, weights file, or org/name[@revision] in the local Hugging Face cache (source lm-head).",
)
@click.option("--tensor", metavar="NAME", help="Tensor to read instead of the LM head (sources lm-head and vectors).")
@click.option(
    "--vectors",
    metavar="FILE",
    shell_complete=complete_file,
    help="word2vec, GloVe, .npy or .safetensors file (source vectors).",
)
@click.option(
    "--donor", metavar="BANK", shell_complete=complete_bank, help="Bank of another tokenizer (source transfer)."
)
@click.option(
    "--tokenizer",
    metavar="FILE",
    shell_complete=complete_file,
    help="Tokenizer whose token ids the bank uses: a file, a folder, or a model's org/name in the local Hugging Face "
    "cache. [default: the model's]",
)
@click.option(
    "--accept-other-tokenizer",
    is_flag=True,
    default=None,
    help="Accept a --tokenizer that differs from the model's own.",
)
@click.option(
    "--for-training", is_flag=True, help="Omit the neighbor table and the index, which dense costs do not use."
)
@click.option("--map", is_flag=True, default=None, help="Make a two-dimensional map of the tokens (extra map).")
@click.option("--name", help="Name of the bank. [default: name of the tokenizer or model, and the source]")
@store_option
@click.option(
    "--cache",
    type=click.Path(),
    help="Directory of encoded text. [default: $COSTBANK_CACHE or the platform's cache directory]",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_setting(),
    help="Any setting, such as word2vec.epochs=10.",
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE.toml", help="TOML file of settings."
)
@json_option
def command(
    files: tuple[str, ...],
    assignments: tuple[str, ...],
    config_file: Path | None,
    for_training: bool,
    as_json: bool,
    **parameters: Any,
) -> None:
    """Build a bank from a source of vectors.

    \b
    costbank build --source word2vec --corpus text/*.txt --tokenizer my.model --name my-bank
    costbank build --source cooccurrence --corpus corpus/ --tokenizer my.model
    costbank build --source lm-head --model path/to/model-folder --name my-model --for-training
    costbank build --source spelling --tokenizer tokenizer.json
    costbank build --source vectors --vectors glove.txt --tokenizer tokenizer.json
    costbank build --source transfer --donor my-bank --tokenizer other.json
    costbank build --config my.toml --set word2vec.epochs=10

    `costbank settings` lists all settings and their defaults. The command line overrides the TOML file, and --set
    overrides the other options.
    """
    from costbank.config import load_config
    from costbank.pipeline import build

    options = {name: value for name, value in parameters.items() if value is not None}
    if files:
        options["corpus"] = list(files)
    by_setting = {_SETTINGS.get(name, (name,)): value for name, value in options.items()}
    config = load_config(by_setting, assignments, config_file)
    if for_training:
        config = _without_table(config)
    bank = build(config, console_progress())
    if as_json:
        print_json({"name": bank.name, "id": bank.id, "path": str(bank.path), "facts": bank.manifest.facts})
        return
    click.echo(f"{bank.name}@{bank.id}  {bank.size:,} tokens × {bank.dim:,}  {bank.path}")
