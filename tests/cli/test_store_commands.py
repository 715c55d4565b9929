"""`costbank rm`, `prune`, `rename` and `cache`, and a warning about another tokenizer."""

import json
import re
import shutil
from pathlib import Path

import pytest
from costbank_cli.choices import CACHE_KINDS
from costbank_cli.removals import shown_bytes

from costbank.bank import Bank, Store
from costbank.caches import KINDS

TWIN = "0" * 16  # sorts before every other id


@pytest.fixture
def store(news_bank: Bank, tmp_path: Path) -> Path:
    """The news bank under two ids; the manifest of the second is another bank's, so it counts as damaged."""
    shutil.copytree(news_bank.path.parent, tmp_path / "store" / "news")
    shutil.copytree(news_bank.path, tmp_path / "store" / "news" / TWIN)
    (tmp_path / "store" / "news" / TWIN / "manifest.json").write_text("{}")
    return tmp_path / "store"


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_rm_prints_what_it_removed_and_the_bytes(run, store: Path, news_bank: Bank):
    size = _size(store / "news" / TWIN)
    refused = run("rm", "news", "--store", store)
    assert refused.status == 2
    assert f"news has 2 banks: news@{TWIN}, news@{news_bank.id} (latest)" in refused.err
    planned = run("rm", f"news@{TWIN[:4]}", "--store", store, "--dry-run")
    assert planned.out == f"would remove news@{TWIN}, {shown_bytes(size)}\nwould free {shown_bytes(size)}\n"
    removed = json.loads(run("rm", f"news@{TWIN}", "--store", store, "--json").out)
    assert removed["banks"] == [{"name": "news", "id": TWIN, "bytes": size}]
    assert (removed["bytes"], removed["latest"], removed["dry_run"]) == (size, {}, False)
    assert run("rm", "news", "--store", store).status == 0
    assert list(store.iterdir()) == []


def test_rm_all_and_the_new_latest_are_printed(run, store: Path, news_bank: Bank):
    assert f"news now means news@{TWIN}\n" in run("rm", f"news@{news_bank.id}", "--store", store).out
    assert f"removed news@{TWIN}" in run("rm", "--all", "news", "--store", store).out
    assert run("rm", "news", "--store", store).status == 3


def test_prune_reports_leftovers_and_names_damaged_banks_that_it_kept(run, store: Path):
    (store / "news" / ".staging-dead").mkdir()
    result = run("prune", "--keep", "1", "--store", store)
    assert f"removed {store / 'news' / '.staging-dead'}, 0 bytes, left by a killed process\n" in result.out
    assert f"kept news@{TWIN}: its manifest is damaged" in result.err
    assert run("prune", "--store", store).status == 2
    assert run("prune", "--keep", "0", "--store", store).status == 2


def test_rename_prints_each_bank(run, store: Path, news_bank: Bank):
    planned = run("rename", "news", "paper", "--store", store, "--dry-run").out
    assert f"would rename news@{TWIN} to paper@{TWIN}\n" in planned
    document = json.loads(run("rename", "news", "paper", "--store", store, "--json").out)
    assert (document["new"], sorted(document["ids"])) == ("paper", sorted([TWIN, news_bank.id]))
    assert {bank.name for bank in Store(store).banks()} == {"paper"}
    assert run("rename", "news", "other", "--store", store).status == 3


def _build(run, folder: Path, words: str, *options: str):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words.split()))
    command = ("build", "--source", "spelling", "--tokenizer", folder / "vocab.txt", "--name", "words", *options)
    return run(*command, "--set", "spelling.dim=4", "--store", folder.parent / "store", "--json")


def test_another_tokenizer_under_the_same_name_is_announced(run, tmp_path: Path):
    store = ("--store", tmp_path / "store")
    first = _build(run, tmp_path / "one", "apple apples pear pears plum")
    assert "warning" not in first.err
    again = _build(run, tmp_path / "one", "apple apples pear pears plum", "--for-training")
    assert "warning" not in again.err
    assert run("show", "words", *store).err == run("list", *store).err == ""
    assert json.loads(run("show", "words", *store, "--json").out)["other_tokenizer_before"] is None

    other = _build(run, tmp_path / "two", "house houses tree trees door doors")
    ids = [json.loads(result.out)["id"] for result in (first, again, other)]
    prints = [Bank(tmp_path / "store" / "words" / i).manifest.tokenizer.fingerprint[:16] for i in (ids[1], ids[2])]
    for text in (f"words@{ids[1]} of vocab.txt", f"words@{ids[2]} of vocab.txt", *prints, "open a bank as words@"):
        assert text in other.err
    assert "warning: the name words now means" in other.err
    for command in (("show", "words"), ("list",)):
        assert f"note: the name words now means words@{ids[2]}" in run(*command, *store).err
    assert run("show", f"words@{ids[2]}", *store).err == ""
    listed = {entry["id"]: entry for entry in json.loads(run("list", *store, "--json").out)}
    before = listed[ids[2]]["other_tokenizer_before"]
    assert before in {f"words@{ids[0]}", f"words@{ids[1]}"}
    assert [listed[i]["other_tokenizer_before"] for i in ids[:2]] == [None, None]
    assert json.loads(run("show", "words", *store, "--json").out)["other_tokenizer_before"] == before


def test_the_cache_is_shown_and_cleared(run, tmp_path: Path):
    entry = tmp_path / "text" / "00" / "entry"
    entry.parent.mkdir(parents=True)
    entry.write_bytes(b"12345")
    shown = {one["kind"]: one for one in json.loads(run("cache", "show", "--cache", tmp_path, "--json").out)}
    assert list(shown) == [kind.name for kind in KINDS] == list(CACHE_KINDS)
    assert (shown["encoded-text"]["entries"], shown["encoded-text"]["bytes"]) == (1, 5)
    assert re.search(r"^encoded-text +1 +0.0 +20\S+T\S+ ", run("cache", "show", "--cache", tmp_path).out, re.M)
    planned = run("cache", "clear", "encoded-text", "--cache", tmp_path, "--dry-run")
    assert planned.out == f"would remove 1 of encoded-text in {tmp_path}, 5 bytes\nwould free 5 bytes\n"
    assert run("cache", "clear", "--older-than", "1", "--cache", tmp_path).out == "freed 0 bytes\n"
    assert json.loads(run("cache", "clear", "--cache", tmp_path, "--json").out)["bytes"] == 5
    assert not entry.exists()
    refused = run("cache", "clear", "encoded", "--cache", tmp_path)
    assert refused.status == 2
    assert "did you mean encoded-text?" in refused.err
