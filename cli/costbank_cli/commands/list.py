"""`costbank list`."""

from pathlib import Path

import click

from costbank_cli.output import json_option, note, print_json, print_table, store_option

__all__ = ["command"]


@click.command("list")
@store_option
@json_option
def command(store: Path | None, as_json: bool) -> None:
    """List the banks of a store.

    \b
    costbank list --store path/to/store

    * marks the latest bank of each name, which the name alone refers to. A note names each name whose latest bank is of
    another tokenizer than the bank before it.
    """
    from costbank.bank import Bank, Store
    from costbank.bank.history import tokenizer_change
    from costbank.errors import CostbankError

    opened = Store(store)
    names = [directory.name for directory in opened.directories()]
    changes = [change for name in names if (change := tokenizer_change(opened.banks_of(name)))]
    before = {(change.name, change.latest.id): f"{change.name}@{change.before.id}" for change in changes}
    listed = []
    for bank in opened.banks():
        entry = {"name": bank.name, "id": bank.id, "latest": bank.latest, "path": str(bank.path)}
        try:
            manifest = Bank(bank.path).manifest
        except CostbankError as error:
            if not bank.path.exists():  # another process has just removed it
                continue
            listed.append(entry | {"problem": error.message})
        else:
            vectors = manifest.vectors
            size = sum(file.size for file in manifest.files.values())
            listed.append(
                entry
                | {"source": manifest.source, "vocab": vectors.vocab, "dim": vectors.dim, "bytes": size}
                | {"created": manifest.created, "fingerprint": manifest.tokenizer.fingerprint}
                | {"other_tokenizer_before": before.get((bank.name, bank.id))}
            )
    if as_json:
        print_json(listed)
        return
    if not listed:
        note(f"{opened.root} contains no banks; `costbank build` builds one, `costbank demo` shows how")
        return
    rows = [
        (f"{e['name']}@{e['id']}{'*' if e['latest'] else ''}", e["problem"], "", "", "", "")
        if "problem" in e
        else (
            f"{e['name']}@{e['id']}{'*' if e['latest'] else ''}",
            e["source"],
            f"{e['vocab']:,}",
            e["dim"],
            f"{e['bytes'] / 1e6:,.1f}",
            e["created"],
        )
        for e in listed
    ]
    print_table(("bank", "source", "vocab", "dim", "MB", "created"), rows, right=("vocab", "dim", "MB"))
    for change in changes:
        note(str(change))
