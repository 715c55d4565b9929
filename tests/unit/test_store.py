import shutil
from pathlib import Path
from typing import Any

import pytest

from costbank.bank import Bank, Store, open_bank
from costbank.bank import store as module
from costbank.errors import BankNotFoundError, CorruptBankError, UsageError


@pytest.fixture
def store(news_bank: Bank, tmp_path: Path) -> Store:
    """Two banks named news (the second a copy under another id) and one named other."""
    shutil.copytree(news_bank.path.parent, tmp_path / "news")
    shutil.copytree(news_bank.path, tmp_path / "news" / "0123456789abcdef")
    shutil.copytree(news_bank.path.parent, tmp_path / "other")
    return Store(tmp_path)


def test_a_name_means_its_latest_bank(store: Store, news_bank: Bank):
    assert store.resolve("news") == store.root / "news" / news_bank.id
    (store.root / "news" / "latest").write_text("0123456789abcdef\n")
    assert store.resolve("news").name == "0123456789abcdef"


def test_a_bank_that_replaces_another_while_its_name_is_read_is_found(store: Store, monkeypatch: pytest.MonkeyPatch):
    """After the ids are listed, a newer bank is written, `latest` moves to it, and the older one is removed."""
    names, read = iter(["1" * 16, "2" * 16, "3" * 16]), module._latest

    def replaced(directory: Path) -> str | None:
        if (name := next(names, None)) is not None:
            older = directory / (read(directory) or "")
            shutil.copytree(older, directory / name)
            (directory / "latest").write_text(f"{name}\n")
            shutil.rmtree(older)
        return read(directory)

    monkeypatch.setattr(module, "_latest", replaced)
    assert store.resolve("other") == store.root / "other" / ("3" * 16)


def test_a_listed_bank_is_the_latest_if_another_replaces_it_meanwhile(
    store: Store, news_bank: Bank, monkeypatch: pytest.MonkeyPatch
):
    directory, newer, listing = store.root / "other", "1" * 16, module._ids

    def replaced(of: Path) -> list[str]:
        ids = listing(of)
        if ids == [news_bank.id]:
            (directory / news_bank.id).rename(directory / newer)
            (directory / "latest").write_text(f"{newer}\n")
        return ids

    monkeypatch.setattr(module, "_ids", replaced)
    assert [(bank.id, bank.latest) for bank in store.banks_of("other")] == [(newer, True)]


@pytest.mark.parametrize("name", ["news", "other"])
def test_a_name_whose_banks_vanish_while_it_is_read_is_not_found(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
):
    """Whether it had two banks or one."""
    read = module._latest

    def removed(directory: Path) -> str | None:
        shutil.rmtree(directory, ignore_errors=True)
        return read(directory)

    monkeypatch.setattr(module, "_latest", removed)
    with pytest.raises(BankNotFoundError, match=f"there is no bank {name}"):
        store.resolve(name)


def test_a_bank_that_replaces_another_while_its_name_is_listed_is_found(
    store: Store, news_bank: Bank, monkeypatch: pytest.MonkeyPatch
):
    """The only bank of a name is removed after it was listed, when a newer one is there."""
    directory, newer, listing = store.root / "other", "1" * 16, module._listed

    def replaced(*arguments: Any) -> list[Path]:
        paths = listing(*arguments)
        if [path.name for path in paths] == [news_bank.id]:
            shutil.copytree(directory / news_bank.id, directory / newer)
            (directory / "latest").write_text(f"{newer}\n")
            shutil.rmtree(directory / news_bank.id)
        return paths

    monkeypatch.setattr(module, "_listed", replaced)
    assert store.resolve("other") == directory / newer


def test_a_prefix_or_a_path_means_one_bank(store: Store, news_bank: Bank):
    assert store.resolve("news@0123").name == "0123456789abcdef"
    assert store.resolve(f"news@{news_bank.id}").name == news_bank.id
    path = store.root / "news" / news_bank.id
    assert store.resolve(str(path)) == path
    assert store.resolve(str(store.root / "other")) == store.root / "other" / news_bank.id
    assert open_bank(path).id == news_bank.id


def test_every_complete_bank_is_listed(store: Store, news_bank: Bank):
    (store.root / "news" / ".staging-x").mkdir()
    (store.root / "Not a name").mkdir()
    (store.root / "empty").mkdir()
    ids = sorted(["0123456789abcdef", news_bank.id])
    assert [(p.name, p.id) for p in store.banks()] == [("news", ids[0]), ("news", ids[1]), ("other", news_bank.id)]
    assert [p.id for p in store.banks() if p.latest] == [news_bank.id] * 2


@pytest.mark.parametrize("reference", ["", "News", "a b", "né"])
def test_a_malformed_reference_is_refused(store: Store, reference: str):
    with pytest.raises(UsageError, match="is not a bank name"):
        store.resolve(reference)


@pytest.mark.parametrize("prefix", ["", "01", "00", "xyzw", "@1234", "0" * 17])
def test_a_prefix_has_four_hexadecimal_digits_or_more(store: Store, news_bank: Bank, prefix: str):
    with pytest.raises(UsageError, match=f"'{prefix}' is not 4 to 16 hexadecimal digits") as caught:
        store.resolve(f"news@{prefix}")
    assert caught.value.hint == f"news has: {', '.join(sorted(['0123456789abcdef', news_bank.id]))}"


def test_a_bank_that_is_replaced_while_it_is_opened_is_opened_again(
    store: Store, news_bank: Bank, monkeypatch: pytest.MonkeyPatch
):
    directory, newer = store.root / "other", "1" * 16
    opened = module.Store.resolve

    def replaced(self: Store, reference: str) -> Path:
        path = opened(self, reference)
        if path.name != newer:
            shutil.copytree(store.root / "news" / news_bank.id, directory / newer)
            (directory / "latest").write_text(f"{newer}\n")
            shutil.rmtree(path)
        return path

    monkeypatch.setattr(module.Store, "resolve", replaced)
    assert open_bank("other", store.root).path == directory / newer


@pytest.mark.parametrize("path", ["a/\0b", "loop/x"])
def test_a_path_that_cannot_be_one_is_not_found(store: Store, path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(store.root)
    (store.root / "loop").symlink_to("loop")
    with pytest.raises(BankNotFoundError, match="there is no bank at"):
        store.resolve(path)


def test_a_reference_is_a_string_or_a_path():
    with pytest.raises(UsageError, match="open_bank takes a string or a Path, not 5"):
        open_bank(5)  # pyright: ignore[reportArgumentType]


def test_an_unknown_reference_names_what_there_is(store: Store, tmp_path: Path):
    with pytest.raises(BankNotFoundError) as caught:
        store.resolve("missing")
    assert caught.value.hint == "the banks are: news, other"
    with pytest.raises(BankNotFoundError, match="news@ffff"):
        store.resolve("news@ffff")
    with pytest.raises(BankNotFoundError):
        store.resolve(f"{tmp_path}/nowhere")
    with pytest.raises(BankNotFoundError) as caught:
        Store(tmp_path / "no-store").resolve("x")
    assert "costbank build" in caught.value.hint
    assert list(Store(tmp_path / "no-store").banks()) == []


def test_a_prefix_of_two_ids_is_refused(store: Store, news_bank: Bank):
    twin = news_bank.id[:6] + ("0" if news_bank.id[6] != "0" else "1") * 10
    (store.root / "news" / twin).mkdir()
    with pytest.raises(UsageError, match="matches several"):
        store.resolve(f"news@{news_bank.id[:6]}")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0123456789abcdee\n", b"../other\n", b"0123456789abcdef\r\n"])
def test_a_damaged_latest_is_reported_by_name(store: Store, content: bytes):
    (store.root / "news" / "latest").write_bytes(content)
    with pytest.raises(CorruptBankError, match="news/latest"):
        store.resolve("news")


def test_a_missing_latest_matters_only_where_there_is_a_choice(store: Store, news_bank: Bank):
    (store.root / "other" / "latest").unlink()
    assert store.resolve("other").name == news_bank.id
    (store.root / "news" / "latest").unlink()
    with pytest.raises(CorruptBankError, match="latest is missing"):
        store.resolve("news")


def test_reading_writes_nothing(store: Store):
    def contents() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in [store.root, *store.root.rglob("*")]}

    before = contents()
    bank = Bank(store.resolve("news"))
    bank.nearest(bank.vocab.find("▁the"), 3)
    bank.search(bank.vectors()[5:7], 2)
    list(store.banks())
    assert contents() == before


def test_a_directory_of_the_same_name_is_no_bank_of_the_store(
    store: Store, news_bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Only references with a slash are paths, so files in the working directory do not change the meaning of a name."""
    (tmp_path / "elsewhere" / "news").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.resolve("news").name == news_bank.id
