"""`costbank verify BANK`."""

from dataclasses import asdict
from pathlib import Path

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import json_option, print_json, print_table, store_option

__all__ = ["command"]


@click.command("verify")
@click.argument("bank", shell_complete=complete_bank)
@store_option
@json_option
def command(bank: str, store: Path | None, as_json: bool) -> None:
    """Check every byte of a bank.

    \b
    costbank verify my-bank

    Compares each file with its SHA-256 in the manifest, and checks its content against the rules of the format. If a
    file is damaged, the command names it and exits with status 4.
    """
    from costbank.bank import Store, verify_bank
    from costbank.bank.manifest import REPAIR
    from costbank.errors import CorruptBankError

    path = Store(store).resolve(bank)
    checks = verify_bank(path)
    broken = [check.name for check in checks if not check.ok]
    if as_json:
        print_json({"path": str(path), "ok": not broken, "files": [asdict(check) for check in checks]})
    else:
        print_table(("file", "finding"), [(check.name, check.problem or "ok") for check in checks])
    if broken:
        raise CorruptBankError(
            f"{path} is damaged: {', '.join(dict.fromkeys(broken))}",
            REPAIR,
        )
