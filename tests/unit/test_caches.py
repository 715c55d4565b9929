"""What is cached, and how it is cleared."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import costbank
from costbank.caches import KINDS, cache_contents, clear_cache
from costbank.config import BuildConfig, CooccurrenceConfig, build_config
from costbank.errors import UsageError
from costbank.files import locked
from costbank.remote import bank_cache

DAY = timedelta(days=1)


@pytest.fixture
def config(news: Path, news_model: Path, tmp_path: Path) -> BuildConfig:
    return build_config(
        source="cooccurrence", tokenizer=news_model, name="news", store=tmp_path / "store", cache=tmp_path / "cache",
        corpus={"files": (str(news),)}, cooccurrence=CooccurrenceConfig(dim=8), engine={"processes": 1},
        neighbors={"k": 0},
    )  # fmt: skip


def _counts(cache: Path) -> dict[str, int]:
    return {one.kind.name: len(one.entries) for one in cache_contents(cache)}


def _age(path: Path, by: timedelta) -> None:
    then = (datetime.now(UTC) - by).timestamp()
    os.utime(path, (then, then))


def test_a_build_fills_the_cache_and_works_after_it_is_cleared(config: BuildConfig):
    bank = costbank.build(config)
    assert _counts(config.cache) == {
        "encoded-text": 1,
        "pair-counts": 1,
        "file-digests": 1,
        "banks": 0,
        "unfinished": 0,
    }
    sizes = {one.kind.name: one.bytes for one in cache_contents(config.cache)}
    on_disk = sum(path.stat().st_size for path in config.cache.rglob("*") if path.is_file())
    assert sum(sizes.values()) == on_disk
    assert all(
        one.last_used and abs(datetime.now(UTC) - one.last_used) < DAY for one in cache_contents(config.cache)[:3]
    )
    assert [one.bytes for one in clear_cache(config.cache, dry_run=True)] == list(sizes.values())
    assert sum(one.bytes for one in clear_cache(config.cache)) == on_disk
    assert [path for path in config.cache.rglob("*") if path.is_file()] == []
    assert costbank.build(config).id == bank.id


def test_only_old_entries_of_the_named_kinds_are_removed(tmp_path: Path):
    entries = {name: tmp_path / "text" / "00" / name for name in ("old", "read", "new")}
    entries["old"].parent.mkdir(parents=True)
    for path in entries.values():
        path.write_bytes(b"12345")
        _age(path, 5 * DAY)
    os.utime(entries["read"], (time.time(), entries["read"].stat().st_mtime))
    (tmp_path / "pairs" / "counts").mkdir(parents=True)
    (tmp_path / "pairs" / "counts" / "0.run").write_bytes(b"1")
    _age(entries["new"], DAY)
    assert clear_cache(tmp_path, ["pair-counts"], older_than=3)[0].entries == ()
    assert [entry.path for entry in clear_cache(tmp_path, ["encoded-text"], older_than=3)[0].entries] == [
        entries["old"]
    ]
    assert _counts(tmp_path) == {"encoded-text": 2, "pair-counts": 1, "file-digests": 0, "banks": 0, "unfinished": 0}
    assert [len(one.entries) for one in clear_cache(tmp_path, ["pair-counts"])] == [1]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["new", "read"]


def test_unfinished_work_is_removed_unless_a_process_has_it_locked(tmp_path: Path):
    for name in ("staging/.staging-a", "staging/.staging-b", "pairs/1.work", "pairs/2.work", ".removed-x"):
        (tmp_path / name).mkdir(parents=True)
    with locked(tmp_path / "staging/.staging-b"), locked(tmp_path / "pairs/2.work"):
        cleared = clear_cache(tmp_path)
        assert {path.name for path in tmp_path.rglob("*")} == {"staging", "pairs", ".staging-b", "2.work"}
    assert [len(one.entries) for one in cleared] == [0, 0, 0, 0, 3]


def test_a_cache_that_does_not_exist_is_empty_and_is_not_created(tmp_path: Path):
    assert set(_counts(tmp_path / "none").values()) == {0}
    assert sum(one.bytes for one in clear_cache(tmp_path / "none")) == 0
    assert not (tmp_path / "none").exists()


def test_mistakes_are_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a cache"):
        cache_contents(tmp_path / "file")
    with pytest.raises(UsageError, match="no cache of the kind 'pair-count'") as caught:
        clear_cache(tmp_path, ["pair-count"])
    assert "did you mean pair-counts?" in caught.value.hint
    for days in (-1, float("nan")):
        with pytest.raises(UsageError, match="older than"):
            clear_cache(tmp_path, older_than=days)
    assert len({kind.name for kind in KINDS}) == len(KINDS)


_BUILD = """
import sys, time
from costbank import build, build_config
from costbank.progress import QuietProgress

class Slow(QuietProgress):
    def step(self, title, total=None, unit=""):
        if title == "train Word2Vec":
            print("training", flush=True)
            time.sleep(60)
        return super().step(title, total, unit)

corpus, model, folder = sys.argv[1:]
build(build_config(source="word2vec", corpus={"files": (corpus,)}, tokenizer=model, store=f"{folder}/store",
                   cache=f"{folder}/cache", word2vec={"dim": 4, "epochs": 1}), Slow())
"""


def test_a_cache_that_a_build_uses_is_not_cleared_until_the_build_ends_or_is_killed(
    news: Path, news_model: Path, tmp_path: Path
):
    command = [sys.executable, "-c", _BUILD, str(news), str(news_model), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        try:
            with pytest.raises(UsageError, match="a running build uses the cache"):
                clear_cache(tmp_path / "cache")
            assert _counts(tmp_path / "cache")["encoded-text"] == 1
        finally:
            process.kill()
    clear_cache(tmp_path / "cache")
    assert sum(_counts(tmp_path / "cache").values()) == 0
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("given", [True, False], ids=["a cache that is given", "the default"])
def test_downloaded_banks_are_cleared_where_they_are_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
):
    monkeypatch.delenv("COSTBANK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "mine" if given else None
    banks = tmp_path / "mine" / "banks" if given else bank_cache()
    names = banks / "news"
    for bank_id in ("0123456789abcdef", "fedcba9876543210"):
        (names / bank_id).mkdir(parents=True)
        (names / bank_id / "manifest.json").write_text("{}")
    (names / "latest").write_text("0123456789abcdef\n")
    (names / ".download-of-another-process").mkdir()
    (contents,) = cache_contents(cache, ["banks"])
    assert (contents.directory, len(contents.entries)) == (banks, 2)
    clear_cache(cache, ["banks"])
    assert sorted(path.name for path in names.iterdir()) == [".download-of-another-process", "latest"]
    assert tmp_path in bank_cache().parents


def test_what_a_killed_process_had_begun_to_remove_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COSTBANK_CACHE", str(tmp_path / "cache"))
    for directory in (tmp_path / "cache", bank_cache()):
        left = directory / ".removed-0123456789abcdef" / "0"
        left.mkdir(parents=True)
        (left / "data").write_bytes(b"12345")
    assert {name: count for name, count in _counts(tmp_path / "cache").items() if count} == {
        "banks": 1,
        "unfinished": 1,
    }
    clear_cache(None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
