"""Banks whose files match the manifest, but whose content breaks a rule of the format."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costbank.bank import Bank, BankWriter, verify_bank
from costbank.bank.manifest import BankFacts
from costbank.neighbors import NeighborTable, build_index

K = 64
Parts = dict[str, Any]


def _swap_first_two(parts: Parts) -> None:
    for array in (parts["ids"], parts["costs"]):
        array[300, :2] = array[300, 1::-1].copy()


def _point_to_unseen(parts: Parts) -> None:
    parts["ids"][300, K - 1] = 0


def _name_itself(parts: Parts) -> None:
    parts["ids"][300, 0] = 300


def _pad_with_a_cost(parts: Parts) -> None:
    parts["ids"][300, K - 1] = -1


def _change_a_cost(parts: Parts) -> None:
    parts["costs"][300, 0] -= 1e-3


def _lengthen_a_row(parts: Parts) -> None:
    parts["vectors"][300] *= 1.001


def _miscount(parts: Parts) -> None:
    parts["status"] = parts["status"].copy()
    parts["status"][300] = 3


def _know_no_status(parts: Parts) -> None:
    parts["status"] = parts["status"].copy()
    parts["status"][300] = 9


def _overlap_tokens(parts: Parts) -> None:
    parts["offsets"] = parts["offsets"].copy()
    parts["offsets"][300] = parts["offsets"][301] + 1


def _index_fewer(parts: Parts) -> None:
    parts["indexed"][300] = False


RULES: dict[str, tuple[Callable[[Parts], None], str, str]] = {
    "neighbors that do not ascend": (_swap_first_two, "neighbors", "do not ascend"),
    "a neighbor without a vector": (_point_to_unseen, "neighbors", "a token without a vector"),
    "a token as its own neighbor": (_name_itself, "neighbors", "own neighbor"),
    "padding that has a cost": (_pad_with_a_cost, "neighbors", "padding"),
    "a cost of other rows": (_change_a_cost, "neighbors", "differs from the cost of the vectors"),
    "a row that is not a unit row": (_lengthen_a_row, "vectors", "row 300 has length 1.001"),
    "statuses that are miscounted": (_miscount, "tokens", "number of tokens of each status differs"),
    "an unknown status": (_know_no_status, "tokens", "status 9"),
    "offsets that fall": (_overlap_tokens, "tokens", "offsets do not rise"),
    "an index of fewer rows": (_index_fewer, "index", "rows instead of"),
}


def _write(bank: Bank, directory: Path, change: Callable[[Parts], None]) -> Path:
    parts: Parts = {
        "vectors": bank.vectors().copy(),
        "ids": bank.neighbors.ids.copy(),
        "costs": bank.neighbors.costs.copy(),
        "status": bank.vocab.status,
        "offsets": bank.vocab.offsets,
        "indexed": bank.usable.copy(),
    }
    change(parts)
    facts = json.loads((bank.path / "manifest.json").read_text())
    for derived in ("digest", "format", "id", "files"):
        facts.pop(derived)
    with BankWriter(directory) as writer:
        writer.write_vectors((bank.size, bank.dim), "F32", [parts["vectors"]])
        writer.write_tokens(replace(bank.vocab, status=parts["status"], offsets=parts["offsets"]))
        writer.write_rows(bank.raw.norms, bank.raw.to_unused)
        writer.write_neighbors(NeighborTable(parts["ids"], parts["costs"]))
        writer.write_index(build_index(bank.vectors, parts["indexed"])[1])
        return writer.publish(BankFacts.model_validate(facts), lambda _: "a card\n")


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_reported_by_file(news_bank: Bank, tmp_path: Path, rule: str):
    change, file, message = RULES[rule]
    path = _write(news_bank, tmp_path / "bank", change)
    broken = [check for check in verify_bank(path) if not check.ok]
    assert any(check.name.startswith(file) and message in check.problem for check in broken), broken


def test_a_bank_written_so_without_a_change_verifies(news_bank: Bank, tmp_path: Path):
    path = _write(news_bank, tmp_path / "bank", lambda _: None)
    assert [check.problem for check in verify_bank(path) if not check.ok] == []
    assert path.name == news_bank.id
