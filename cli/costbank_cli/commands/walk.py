"""`costbank walk BANK TOKEN`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costbank_cli.commands.nearest import cost_bars
from costbank_cli.completion import complete_bank
from costbank_cli.output import json_option, note, print_json, print_table, store_option

if TYPE_CHECKING:
    from costbank.bank import Bank, Neighbor

__all__ = ["command"]

_HELP = "a number: go there · a token: go there · b: back · Enter or q: end"


@click.command("walk")
@click.argument("bank", shell_complete=complete_bank)
@click.argument("token")
@click.option("-k", default=10, show_default=True, help="Number of tokens to choose from.")
@store_option
@json_option
def command(bank: str, token: str, k: int, store: Path | None, as_json: bool) -> None:
    """Step from a token to its nearest tokens, and on from there.

    \b
    costbank walk my-bank king

    Type the number of a line, or any token (piece:b for a token that is a number or a command); b goes back, and Enter
    or q ends the walk. Steps are read from standard input, a line each. With --json, the whole way is printed at the
    end.
    """
    from costbank import open_bank

    opened = open_bank(bank, store)
    walk = _Walk(opened, k)
    walk.go(opened.vocab.match(token).id)
    moved = True
    while True:
        if moved and not as_json:
            walk.show()
        click.echo(_HELP, err=True)
        step = _read()
        if step in ("", "q"):
            break
        moved = walk.take(step)
    if as_json:
        facts = [asdict(opened.vocab.describe(opened.vocab.match(i))) for i in walk.way]
        print_json({"bank": opened.name, "id": opened.id, "tokens": facts, "costs": walk.costs()})


class _Walk:
    """The tokens on the way, of which the last is where the walk is, and the tokens nearest to that one."""

    def __init__(self, bank: "Bank", k: int) -> None:
        self.bank, self.k = bank, k
        self.way: list[int] = []
        self.neighbors: list[Neighbor] = []

    def go(self, token: int) -> None:
        self.neighbors = self.bank.nearest(token, self.k)  # may refuse k, and then nothing has changed
        self.way.append(token)

    def take(self, step: str) -> bool:
        """Follow what was typed. What is not understood is told, and False is returned."""
        from costbank.errors import CostbankError

        if step == "b":
            if len(self.way) == 1:
                note("this is where the walk began")
                return False
            self.way.pop()
            self.go(self.way.pop())
            return True
        if step.isascii() and step.isdigit():
            if not 1 <= int(step) <= len(self.neighbors):
                note(f"there is no line {step}; id:{step} is the token with this id")
                return False
            self.go(self.neighbors[int(step) - 1].id)
            return True
        try:
            self.go(self.bank.vocab.match(step).id)
        except CostbankError as error:
            note(f"{error.message}; {error.hint}")
            return False
        return True

    def show(self) -> None:
        display = self.bank.vocab.display
        click.echo(" → ".join(display(token) for token in self.way))
        if not self.neighbors:
            note("this token has no vector: its cost to every token is 1")
        else:
            bars = cost_bars([n.cost for n in self.neighbors])
            rows: list[list[Any]] = [
                [number, n.cost, bar, n.text]
                for number, (n, bar) in enumerate(zip(self.neighbors, bars, strict=True), 1)
            ]
            print_table(("", "cost", "from 0 to 1", "token"), rows, right=("", "cost"))

    def costs(self) -> list[float]:
        """The cost of each step."""
        return [self.bank.cost(a, b) for a, b in zip(self.way, self.way[1:], strict=False)]


def _read() -> str:
    """A line of standard input without its end; empty at the end of the input."""
    return sys.stdin.readline().strip()
