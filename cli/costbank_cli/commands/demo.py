"""`costbank demo`."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from costbank_cli.output import console_progress, json_option, print_json, store_option

__all__ = ["command"]


@click.command("demo")
@store_option
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Directory for the text and the tokenizer. [default: in the platform's cache directory]",
)
@json_option
def command(store: Path | None, work: Path | None, as_json: bool) -> None:
    """Run the whole workflow on the docstrings of installed packages.

    \b
    costbank demo --store demo-banks

    It trains a tokenizer, builds a Word2Vec bank named `demo` with a map, looks up nearest tokens here and over HTTP,
    and trains a small language model with cross-entropy, with an embedding that starts from the bank, and with EMOLoss
    after the same start. It takes about five minutes on two cores.
    """
    from costbank.errors import require

    for library in ("gensim", "loky", "sentencepiece", "faiss", "openTSNE", "fastapi", "pydantic_settings", "uvicorn",
                    "torch"):  # fmt: skip
        require(library, "demo")

    from platformdirs import user_cache_path

    from costbank.bank import default_store
    from costbank_cli.demo import run_demo

    store = store or default_store()
    say = partial(click.echo, err=as_json)
    result = run_demo(store, work or user_cache_path("costbank") / "demo", say, console_progress())
    if as_json:
        print_json(
            {
                "bank": {"name": result.bank.name, "id": result.bank.id, "path": str(result.bank.path)},
                "nearest": result.nearest,
                "http": {"url": result.url, "answer": result.answer},
                "guess": result.guess,
                "training": {name: [asdict(point) for point in points] for name, points in result.training.items()},
            }
        )
    else:
        click.echo(f"Next, each with --store {store}: costbank nearest demo ▁array; costbank show demo; costbank serve")
