"""`costbank show BANK`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import json_option, note, print_facts, print_json, print_table, store_option

if TYPE_CHECKING:
    from costbank.bank import Bank
    from costbank.bank.manifest import NeighborFacts

__all__ = ["command"]


@click.command("show")
@click.argument("bank", shell_complete=complete_bank)
@store_option
@json_option
def command(bank: str, store: Path | None, as_json: bool) -> None:
    """Show what a bank contains and how it was made.

    \b
    costbank show my-bank

    If BANK is a name whose latest bank is of another tokenizer than the bank before it, a note says so.
    """
    from costbank import open_bank
    from costbank.bank import Store
    from costbank.bank.card import example_tokens
    from costbank.bank.history import tokenizer_change

    opened = open_bank(bank, store)
    manifest = opened.manifest
    is_name = "@" not in bank and "/" not in bank
    change = tokenizer_change(Store(store).banks_of(opened.name)) if is_name else None
    display = opened.vocab.display
    examples = [
        (display(token), [display(other) for other in nearest])
        for token, nearest in example_tokens(opened.vocab, opened.neighbors)
    ]
    if as_json:
        before = f"{opened.name}@{change.before.id}" if change else None
        document = {"name": opened.name, "path": str(opened.path), "other_tokenizer_before": before}
        listed = [{"token": token, "nearest": nearest} for token, nearest in examples]
        print_json({**document, **manifest.model_dump(), "examples": listed})
        return
    if change:
        note(str(change))
    facts: dict[str, object] = {
        "bank": f"{opened.name}@{opened.id}",
        "path": opened.path,
        "source": manifest.source,
        "vectors": f"{opened.size:,} × {opened.dim:,}, {manifest.vectors.dtype}",
        "tokens": ", ".join(f"{count:,} {name}" for name, count in manifest.status.items() if count),
        "tokenizer": f"{manifest.tokenizer.file} ({manifest.tokenizer.kind}), {manifest.tokenizer.fingerprint[:16]}…",
        "neighbors": _neighbors(manifest.neighbors),
        "index": f"{manifest.index.kind}, {manifest.index.rows:,} rows",
        "map": _map(opened),
        "size": f"{sum(file.size for file in manifest.files.values()) / 1e6:,.1f} MB",
        "created": f"{manifest.created} by costbank {manifest.costbank}, in {sum(manifest.seconds.values()):.1f} s",
        "reproducible": "yes, bit for bit" if manifest.reproducible else "no: trained with several threads",
    }
    facts |= {name.replace("_", " "): _shown(value) for name, value in manifest.facts.items()}
    facts |= {f"input {file['name']}": f"{file['size']:,} bytes, {file['sha256'][:16]}…" for file in manifest.inputs}
    facts["settings"] = ", ".join(_settings(manifest.config))
    facts["libraries"] = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())
    print_facts(facts)
    if examples:
        click.echo()
        print_table(
            ["token", "nearest, by ascending cost"], [[token, " ".join(nearest)] for token, nearest in examples]
        )


def _neighbors(facts: "NeighborFacts") -> str:
    if not facts.k:
        return "no table; computed on request"
    if facts.exact:
        return f"{facts.k} per token, exact"
    within = f", within {facts.recall_tolerance:g} of the exact costs" if facts.recall_tolerance else ""
    return f"{facts.k} per token, recall@{facts.recall_at} {facts.recall:.4f}{within}"


def _map(bank: "Bank") -> str:
    facts = bank.manifest.map
    if not bank.has_map:
        return "no"
    if facts is None:
        return "yes"
    kept = f"{facts.kept:.0%} of the {facts.kept_of} nearest tokens are among the {facts.kept_of} nearest on it"
    return f"yes, seed {facts.seed}; {kept}"


def _settings(config: dict[str, Any]) -> Iterator[str]:
    """Each setting as --set takes it."""
    from costbank.config import semantic_settings

    for path, value in semantic_settings(config).items():
        yield f"{path}={value if isinstance(value, str) else json.dumps(value)}"


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
