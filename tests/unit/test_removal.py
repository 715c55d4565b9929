"""Banks that are removed, pruned and renamed."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from costbank.bank import Bank, Store, open_bank, prune_banks, removal, remove_banks, rename_banks, verify_bank
from costbank.bank.manifest import write_manifest
from costbank.errors import BankNotFoundError, StorageError, UsageError
from costbank.files import staging_directory

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "format1"
IDS = {name: next(path.name for path in (GOLDEN / name).iterdir() if path.is_dir()) for name in ("f32", "f16", "bf16")}
OLD, MIDDLE, NEW = IDS["f32"], IDS["f16"], IDS["bf16"]


def _put(store: Path, name: str, days: Mapping[str, str], latest: str) -> Path:
    """Copies of the golden banks under one name, created on these days of January 2026."""
    for bank, bank_id in IDS.items():
        if bank_id in days:
            directory = store / name / bank_id
            shutil.copytree(GOLDEN / bank / bank_id, directory)
            facts = json.loads((directory / "manifest.json").read_text())
            facts.pop("digest")
            (directory / "manifest.json").write_bytes(write_manifest(facts | {"created": days[bank_id]}))
    (store / name / "latest").write_text(f"{latest}\n")
    return store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three banks named many; the time zones of two would sort wrongly as text."""
    days = {OLD: "2026-01-02T00:30:00+02:00", MIDDLE: "2026-01-01T23:00:00Z", NEW: "2026-01-03T00:00:00+00:00"}
    return _put(tmp_path, "many", days, NEW)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _is_whole(store: Path) -> bool:
    return all(check.ok for bank in Store(store).banks() for check in verify_bank(bank.path))


def test_one_bank_is_removed_and_the_latest_stays(store: Path):
    size = sum(file.stat().st_size for file in (store / "many" / OLD).iterdir())
    removal = remove_banks([f"many@{OLD[:6]}"], store)
    assert [(bank.name, bank.id, bank.bytes) for bank in removal.banks] == [("many", OLD, size)]
    assert (removal.bytes, removal.latest) == (size, {})
    assert _names(store / "many") == sorted([MIDDLE, NEW, "latest"])
    assert open_bank("many", store).id == NEW


def test_latest_moves_to_the_newest_bank_that_remains(store: Path):
    assert remove_banks([f"many@{NEW}"], store).latest == {"many": MIDDLE}
    assert open_bank("many", store).id == MIDDLE


def test_the_last_bank_takes_latest_and_the_directory_with_it(store: Path):
    assert remove_banks([f"many@{OLD}", f"many@{NEW}"], store).latest == {"many": MIDDLE}
    assert remove_banks(["many"], store).latest == {"many": None}
    assert list(store.iterdir()) == []


def test_a_name_with_several_banks_is_refused_and_lists_them(store: Path):
    with pytest.raises(UsageError, match="many has 3 banks") as caught:
        remove_banks(["many"], store)
    assert all(f"many@{bank_id}" in caught.value.message for bank_id in IDS.values())
    assert f"many@{NEW} (latest)" in caught.value.message
    assert "--all" in caught.value.hint
    assert [bank.id for bank in remove_banks(["many"], store, every=True).banks][-1] == NEW


def test_nothing_is_removed_if_one_reference_is_refused(store: Path):
    for wrong in ("none", "many@ffff", "./many", "Many", str(store / "many" / OLD)):
        with pytest.raises((UsageError, BankNotFoundError)):
            remove_banks([f"many@{OLD}", wrong], store)
    with pytest.raises(UsageError, match="not the name of banks"):
        remove_banks([f"many@{OLD}"], store, every=True)
    assert len(list(Store(store).banks())) == 3


def test_a_dry_run_says_the_same_and_changes_nothing(store: Path):
    (store / "many" / ".staging-dead").mkdir()
    before = {path: path.lstat().st_mtime_ns for path in store.rglob("*")}
    planned = remove_banks([f"many@{NEW}"], store, dry_run=True)
    pruned = prune_banks(1, store=store, dry_run=True)
    rename_banks("many", "other", store, dry_run=True)
    assert {path: path.lstat().st_mtime_ns for path in store.rglob("*")} == before
    assert prune_banks(1, store=store) == pruned
    assert planned.latest == {"many": MIDDLE}


def test_prune_keeps_the_newest_of_each_name_and_the_latest(store: Path):
    _put(store, "other", {OLD: "2026-01-01T00:00:00+00:00", NEW: "2026-01-02T00:00:00+00:00"}, OLD)
    assert {(bank.name, bank.id) for bank in prune_banks(1, store=store).banks} == {("many", OLD), ("many", MIDDLE)}
    assert _names(store / "other") == sorted([OLD, NEW, "latest"])
    assert prune_banks(2, store=store).banks == ()
    assert _is_whole(store)


def test_prune_of_one_name_leaves_the_others_alone(store: Path):
    _put(store, "other", {OLD: "2026-01-01T00:00:00+00:00", NEW: "2026-01-02T00:00:00+00:00"}, NEW)
    assert [(bank.name, bank.id) for bank in prune_banks(1, "other", store).banks] == [("other", OLD)]
    for wrong, error in (("none", BankNotFoundError), ("many@ffff", UsageError)):
        with pytest.raises(error):
            prune_banks(1, wrong, store)
    with pytest.raises(UsageError, match="cannot keep 0 banks"):
        prune_banks(0, store=store)


def test_a_damaged_bank_is_kept_by_prune_and_removed_by_rm(store: Path):
    (store / "many" / OLD / "manifest.json").write_text("{}")
    removal = prune_banks(1, store=store)
    assert [bank.id for bank in removal.banks] == [MIDDLE]
    assert [bank.id for bank in removal.undated] == [OLD]
    assert [bank.id for bank in remove_banks([f"many@{OLD}"], store).banks] == [OLD]


def test_only_what_dead_processes_left_is_cleared(store: Path):
    directory = store / "many"
    for dead in (".staging-dead", ".removed-0123456789abcdef-1"):
        (directory / dead).mkdir()
        (directory / dead / "part").write_bytes(b"123")
    (directory / ".latest.x1").write_bytes(b"12")
    (store / "gone" / ".staging-y").mkdir(parents=True)
    (store / "empty").mkdir()
    (store / "empty" / "latest").write_text(f"{OLD}\n")
    with staging_directory(store / "busy") as busy:
        removal = prune_banks(3, store=store)
        assert busy.is_dir()
    names = {leftover.path.name: leftover.bytes for leftover in removal.leftovers}
    assert names == {
        ".staging-dead": 3, ".removed-0123456789abcdef-1": 3, ".latest.x1": 2, ".staging-y": 0, "latest": 17,
    }  # fmt: skip
    assert removal.banks == ()
    assert sorted(path.name for path in store.iterdir()) == ["many"]


def test_an_open_bank_keeps_what_it_has_mapped(store: Path):
    bank = open_bank(f"many@{OLD}", store)
    token = next(i for i in range(bank.size) if bank.has_vector(i))
    nearest, rows = bank.nearest(token, 2), bank.vectors().copy()
    remove_banks([f"many@{OLD}"], store)
    assert bank.nearest(token, 2) == nearest
    assert (bank.vectors() == rows).all()
    with pytest.raises(BankNotFoundError, match="removed after it was opened"):
        bank.search(rows[token][None], 1)


def test_readers_ignore_what_is_being_removed(store: Path):
    (store / "many" / OLD).rename(store / "many" / f".removed-{OLD}-00000000")
    assert {bank.id for bank in Store(store).banks()} == {MIDDLE, NEW}
    with pytest.raises(BankNotFoundError):
        open_bank(f"many@{OLD}", store)


def test_a_bank_that_is_a_link_is_unlinked_and_its_target_stays(store: Path, tmp_path: Path):
    target = tmp_path.parent / f"{tmp_path.name}-target"
    (store / "many" / OLD).rename(target)
    (store / "many" / OLD).symlink_to(target)
    remove_banks([f"many@{OLD}"], store)
    assert Bank(target).id == OLD
    assert _names(store / "many") == sorted([MIDDLE, NEW, "latest"])


def test_a_name_is_renamed_with_its_banks(store: Path):
    (store / "many" / ".staging-dead").mkdir()
    (store / "free").mkdir()
    removal = rename_banks("many", "free", store)
    assert [leftover.path.name for leftover in removal.leftovers] == [".staging-dead"]
    assert _names(store) == ["free"]
    assert _names(store / "free") == sorted([*IDS.values(), "latest"])
    assert open_bank("free", store).id == NEW


def test_a_name_in_use_is_never_replaced(store: Path):
    _put(store, "other", {OLD: "2026-01-01T00:00:00+00:00"}, OLD)
    (store / "file").write_text("")
    (store / "full").mkdir()
    (store / "full" / "notes.txt").write_text("")
    for new in ("other", "many", "file", "full"):
        for dry_run in (True, False):
            with pytest.raises(UsageError, match=f"the name {new} is in use"):
                rename_banks("many", new, store, dry_run=dry_run)
    for new in ("", "Many", "a/b", ".."):
        with pytest.raises(UsageError, match="not a name for banks"):
            rename_banks("many", new, store)
    with pytest.raises(BankNotFoundError):
        rename_banks("none", "free", store)
    assert len(list(Store(store).banks())) == 4


def test_a_name_that_another_process_renames_first_is_not_found(store: Path, monkeypatch: pytest.MonkeyPatch):
    removed_from = removal._remove_from

    def renamed(*arguments: Any) -> removal.Removal:
        result = removed_from(*arguments)
        (store / "many").rename(store / "taken")
        return result

    monkeypatch.setattr(removal, "_remove_from", renamed)
    with pytest.raises(BankNotFoundError, match="many was removed or renamed just now"):
        rename_banks("many", "new", store)
    assert (store / "taken" / "latest").is_file()


def test_a_name_under_which_a_process_writes_is_not_renamed(store: Path):
    with staging_directory(store / "many"):
        for dry_run in (True, False):
            with pytest.raises(UsageError, match="another process is writing a bank named many"):
                rename_banks("many", "free", store, dry_run=dry_run)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written_is_an_error(store: Path):
    (store / "many").chmod(0o555)
    with pytest.raises(StorageError, match="cannot write"):
        remove_banks([f"many@{OLD}"], store)
    (store / "many").chmod(0o755)
