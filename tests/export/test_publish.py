"""Exports that cannot succeed end before long work, with a clear message, and without leftover files."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from costbank.bank import Bank
from costbank.errors import CorruptBankError, InputError, MissingExtraError, StorageError, UsageError
from costbank.export import FORMATS, export_bank
from costbank.export.publish import check_space
from costbank.progress import QuietProgress, Step
from costbank.vocab import TokenStatus, Vocab
from tests.export.conftest import write_bank

TABLES = [name for name, each in FORMATS.items() if not each.has_tokenizer]


class Notes(QuietProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("name", TABLES)
def test_existing_files_are_never_replaced(odd_bank: Bank, tmp_path: Path, name: str):
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(UsageError, match="already exists") as caught:
        export_bank(odd_bank, name, out)
    assert caught.value.hint
    assert out.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


def test_dangling_links_and_files_next_to_the_output_are_never_replaced(odd_bank: Bank, tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="already exists"):
        export_bank(odd_bank, "npy", tmp_path / "link")
    (tmp_path / "a.npy.vocab.jsonl").write_text("mine")
    with pytest.raises(UsageError, match=r"vocab\.jsonl already exists"):
        export_bank(odd_bank, "npy", tmp_path / "a.npy")
    for place in (Path(), Path("/")):
        with pytest.raises(UsageError, match="already exists"):
            export_bank(odd_bank, "npy", place)


def test_a_file_that_another_process_creates_during_the_export_is_kept(odd_bank: Bank, tmp_path: Path):
    class Racing(QuietProgress):
        @contextmanager
        def step(self, title: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
            if title == "write vectors":
                (tmp_path / "a.npy").write_text("theirs")
            with super().step(title, total, unit) as step:
                yield step

    with pytest.raises(UsageError, match="already exists"):
        export_bank(odd_bank, "npy", tmp_path / "a.npy", progress=Racing())
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert (tmp_path / "a.npy").read_text() == "theirs"


def test_an_export_into_a_bank_is_refused(odd_bank: Bank):
    with pytest.raises(UsageError, match="inside the bank"):
        export_bank(odd_bank, "npy", odd_bank.path / "rows.npy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format_name": "hdf5"}, "no format 'hdf5'"),
        ({"format_name": "npy", "tokenizer": Path("x.model")}, "contains no tokenizer"),
        ({"format_name": "npy", "dtype": "F16"}, "always written as F32"),
    ],
)
def test_options_that_do_not_fit_are_refused(odd_bank: Bank, tmp_path: Path, arguments: dict, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        export_bank(odd_bank, out=tmp_path / "out", **arguments)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_bank_is_reported_before_anything_is_written(odd_bank: Bank, tmp_path: Path, name: str):
    shutil.copytree(odd_bank.path, tmp_path / "bank")
    damaged = tmp_path / "bank" / FORMATS[name].bank_files[-1]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CorruptBankError, match=damaged.name) as caught:
        export_bank(Bank(tmp_path / "bank"), name, tmp_path / "out" / "x")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_too_little_space_is_reported_first_and_so_are_large_sizes(
    odd_bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from costbank.export import publish

    notes = Notes()
    export_bank(odd_bank, "costs-npy", tmp_path / "costs.npy", progress=notes)
    export_bank(odd_bank, "npy", tmp_path / "rows.npy", progress=notes)
    check_space(1_000, tmp_path / "small", notes, unreported_bytes=1_000)
    check_space(1_001, tmp_path / "large", notes, unreported_bytes=1_000)
    assert [note.split(" takes about 0.0 MB, and ")[0] for note in notes.notes] == [
        str(tmp_path / "costs.npy"),
        str(tmp_path / "large"),
    ]
    monkeypatch.setattr(publish, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 4_000))
    with pytest.raises(StorageError, match="MB free") as caught:
        export_bank(odd_bank, "costs-npy", tmp_path / "other" / "costs.npy")
    assert caught.value.hint
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", TABLES)
def test_the_estimated_size_is_enough(news_bank: Bank, tmp_path: Path, name: str):
    exported = export_bank(news_bank, name, tmp_path / "out")
    assert exported.size <= FORMATS[name].estimate_bytes(news_bank, "F32") <= 3 * exported.size + 100_000


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_nothing(odd_bank: Bank, news_bank: Bank, news_model: Path, tmp_path: Path, name: str):
    """The kernel lets no file grow past 512 bytes."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from costbank import open_bank\n"
        "from costbank.errors import StorageError; from costbank.export import export_bank\n"
        "import pyarrow.parquet\n"
        "bank, *tokenizer = map(Path, sys.argv[3:])\n"
        "bank = open_bank(bank)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))\n"
        "try: export_bank(bank, sys.argv[1], Path(sys.argv[2]), *tokenizer)\n"
        "except StorageError as error: print(error)\n"
    )
    inputs = (news_bank.path, news_model) if FORMATS[name].has_tokenizer else (odd_bank.path,)
    command = [sys.executable, "-c", code, name, tmp_path / "new" / "out", *inputs]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "no space left" in result.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("with_signal", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
    ids=["Ctrl-C", "SIGTERM", "kill -9"],
)
def test_an_interrupted_export_leaves_no_partial_file(tmp_path: Path, with_signal: signal.Signals, status: int):
    size, dim = 12_000, 64
    rows = np.zeros((size, dim), np.float32)
    rows[np.arange(size), np.arange(size) % dim] = 1
    vocab = Vocab.from_tokens([b"%d" % i for i in range(size)], [TokenStatus.OK] * size)
    bank = write_bank(tmp_path / "store" / "large", vocab, rows, k=1)
    place = tmp_path / "out"
    place.mkdir()
    command = [sys.executable, "-m", "costbank_cli", "export", str(bank.path), "--format", "costs-npy",
               "--out", str(place / "costs.npy")]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    until = time.monotonic() + 30
    while time.monotonic() < until and not [path for path in place.rglob("costs.npy") if path.stat().st_size > 1_000]:
        time.sleep(0.01)
    process.send_signal(with_signal)
    try:
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == status, stderr
    assert not (place / "costs.npy").exists()
    if with_signal is not signal.SIGKILL:
        assert "Traceback" not in stderr
        assert not list(place.iterdir())
    (place / ".staging-of-another-tool").mkdir()
    export_bank(bank, "word2vec-binary", place / "rows.bin")
    assert sorted(path.name for path in place.iterdir()) == [
        ".staging-of-another-tool", "rows.bin", "rows.bin.vocab.jsonl",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_created_is_an_error(odd_bank: Bank, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot write") as caught:
        export_bank(odd_bank, "npy", tmp_path / "file" / "rows.npy")
    assert "--out" in caught.value.hint


def test_a_bank_without_vectors_cannot_be_exported_for_gensim(tmp_path: Path):
    vocab = Vocab.from_tokens([b"a", b"b"], [TokenStatus.OK] * 2)
    bank = write_bank(tmp_path / "store" / "empty", vocab, np.zeros((2, 3), np.float32), k=1)
    with pytest.raises(InputError, match="no token of this bank has a vector"):
        export_bank(bank, "word2vec-text", tmp_path / "out")
    export_bank(bank, "npy", tmp_path / "rows.npy")
    assert (np.load(tmp_path / "rows.npy") == 0).all()
    export_bank(bank, "parquet", tmp_path / "bank.parquet")


def test_tokens_that_are_left_out_are_counted(odd_bank: Bank, tmp_path: Path):
    notes = Notes()
    export_bank(odd_bank, "word2vec-text", tmp_path / "out", progress=notes)
    assert notes.notes == [f"3 of {odd_bank.size} tokens have no vector and are left out"]


def test_a_missing_library_names_the_extra(odd_bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError) as caught:
        export_bank(odd_bank, "parquet", tmp_path / "bank.parquet")
    assert "costbank[export]" in caught.value.hint


def test_half_precision_rows_are_exported_as_they_are(odd_bank: Bank, tmp_path: Path):
    bank = write_bank(tmp_path / "store" / "half", odd_bank.vocab, odd_bank.vectors(), "BF16")
    for name in TABLES:
        export_bank(bank, name, tmp_path / name)
    assert np.array_equal(np.load(tmp_path / "npy"), bank.vectors())


def test_paths_may_be_strings(odd_bank: Bank, tmp_path: Path):
    exported = export_bank(odd_bank, "npy", str(tmp_path / "rows.npy"))
    assert exported.path == tmp_path / "rows.npy"
    assert np.load(exported.path).shape == (odd_bank.size, odd_bank.dim)
