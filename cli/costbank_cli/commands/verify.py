"""`costbank verify BANK`."""

from dataclasses import asdict
from pathlib import Path

import click

from costbank_cli.output import json_option, print_json, print_table, store_option

__all__ = ["command"]


@click.command("verify")
@click.argument("bank")
@store_option
@json_option
def command(bank: str, store: Path | None, as_json: bool) -> None:
    """Check every byte of a bank.

    Each file is held against the manifest's sha256, and the content against the rules of the format. Exits with 4
    where a file is not what it should be, and names it.
    """
    from costbank.bank import Store, verify_bank
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
            "remove this bank's directory and build or copy it again",
        )
