"""Models that are found by their id in a local cache of Hugging Face, in the layout of its own library."""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import scan_cache_dir, try_to_load_from_cache
from safetensors.numpy import save_file

import costbank
from costbank.bank import Bank
from costbank.config import LMHeadConfig, build_config
from costbank.errors import CheckpointError, InputNotFoundError
from costbank.hub import cache_note, hub_name, local_path
from costbank.tokenizers import load_tokenizer
from tests.unit.recorded_progress import RecordedProgress

ID = "Some-Org/tiny-1.5B"
COMMITS = ("0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98")
WORDS = ["apple", "apples", "pear", "pears", "plum", "plums"]


def _write_model(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    rows = np.random.default_rng(seed).standard_normal((len(WORDS), 4)).astype(np.float32)
    save_file({"lm_head.weight": rows}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


def _put_in_cache(cache: Path, files: Path, commit: str, *refs: str) -> Path:
    """Store the files of a folder as Hugging Face does: each as a blob, linked from the snapshot of a commit."""
    model = cache / f"models--{ID.replace('/', '--')}"
    snapshot = model / "snapshots" / commit
    (model / "blobs").mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True)
    for file in files.iterdir():
        blob = hashlib.sha256(file.read_bytes()).hexdigest()
        (model / "blobs" / blob).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob)
    for ref in refs:
        (model / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (model / "refs" / ref).write_text(commit)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two commits of a model: `main`, and the tag `v1`; the working directory is an empty folder."""
    cache = tmp_path / "hub"
    for commit, ref, seed in zip(COMMITS, ("main", "refs/v1"), (1, 2), strict=True):
        _put_in_cache(cache, _write_model(tmp_path / f"model{seed}", seed), commit, ref)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return cache


def _build(model: str | Path, store: Path, progress: RecordedProgress | None = None, **settings) -> Bank:
    config = build_config(
        source="lm-head", store=store, lm_head=LMHeadConfig(model=Path(model)), neighbors={"k": 2}, **settings
    )
    return costbank.build(config, progress)


def test_the_layout_is_that_of_hugging_face(cache: Path):
    found = try_to_load_from_cache(ID, "model.safetensors", cache_dir=cache)
    assert found == str(local_path(Path(ID), "model") / "model.safetensors")
    assert scan_cache_dir(cache).warnings == []


@pytest.mark.parametrize("way", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_cache_is_where_hugging_face_puts_it(cache: Path, way: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    below = {"HOME": ".cache/huggingface", "XDG_CACHE_HOME": "huggingface"}.get(way, "")
    home = cache.parent / "home"
    target = home if way.endswith("HUB_CACHE") else home / below / "hub"
    target.parent.mkdir(parents=True, exist_ok=True)
    cache.rename(target)
    monkeypatch.setenv(way, str(home))
    assert local_path(Path(ID), "model") == target / "models--Some-Org--tiny-1.5B" / "snapshots" / COMMITS[0]


@pytest.mark.parametrize(
    ("revision", "number"), [("", 0), ("@main", 0), ("@refs/v1", 1), (f"@{COMMITS[1]}", 1), (f"@{COMMITS[1][:8]}", 1)]
)
def test_a_revision_chooses_the_snapshot(cache: Path, revision: str, number: int):
    assert local_path(Path(ID + revision), "model").name == COMMITS[number]


@pytest.mark.parametrize("revision", ["@v2", "@0123", "@0000000"])
def test_a_revision_that_is_not_cached_is_an_error_that_names_those_that_are(cache: Path, revision: str):
    with pytest.raises(InputNotFoundError, match="which has other revisions: main, refs/v1"):
        local_path(Path(ID + revision), "model")


@pytest.mark.parametrize("path", [f"{ID}@../../x", f"{ID}@/etc", f"{ID}@a@b", "../model", "a/b/c", "/a/b", "model"])
def test_a_path_that_cannot_be_an_id_stays_a_path(cache: Path, path: str):
    assert local_path(Path(path), "model") == Path(path)
    assert cache_note(Path(path)) is None


def test_without_main_the_only_snapshot_is_taken_and_several_are_refused(cache: Path):
    (cache / "models--Some-Org--tiny-1.5B" / "refs" / "main").unlink()
    with pytest.raises(InputNotFoundError, match="other revisions: refs/v1"):
        local_path(Path(ID), "model")
    for path in (cache / "models--Some-Org--tiny-1.5B" / "snapshots" / COMMITS[0]).iterdir():
        path.unlink()
    (cache / "models--Some-Org--tiny-1.5B" / "snapshots" / COMMITS[0]).rmdir()
    assert local_path(Path(ID), "model").name == COMMITS[1]


def test_a_bank_is_the_same_from_the_cache_and_from_a_folder(cache: Path, tmp_path: Path):
    progress = RecordedProgress()
    cached = _build(ID, tmp_path / "a", progress)
    assert f"{ID} is the snapshot {COMMITS[0]} in the Hugging Face cache {cache}" in progress.notes
    folder = _build(tmp_path / "model1", tmp_path / "b")
    snapshot = _build(local_path(Path(ID), "model"), tmp_path / "c")
    named = _build(ID, tmp_path / "d", tokenizer=Path(ID))
    for bank in (folder, snapshot, named):
        assert bank.id == cached.id
        assert bank.manifest.inputs == cached.manifest.inputs
        assert bank.manifest.tokenizer == cached.manifest.tokenizer
    assert cached.name == snapshot.name == named.name == "tiny-1.5b-lm-head"
    assert cached.manifest.run["lm_head"]["model"] == ID
    assert _build(f"{ID}@refs/v1", tmp_path / "a").id != cached.id
    assert hub_name(Path(f"{ID}@refs/v1")) == "tiny-1.5B"


def test_a_tokenizer_is_taken_from_the_cache_by_every_source(cache: Path, tmp_path: Path):
    assert load_tokenizer(ID).vocab.size == len(WORDS)
    (tmp_path / "words.txt").write_text("\n".join([" ".join(WORDS)] * 50))
    progress = RecordedProgress()
    bank = costbank.build(
        build_config(
            source="word2vec", tokenizer=Path(ID), store=tmp_path / "store", cache=tmp_path / "cache",
            corpus={"files": (str(tmp_path / "words.txt"),)}, word2vec={"dim": 4, "epochs": 1},
        ),
        progress,
    )  # fmt: skip
    assert bank.name == "tiny-1.5b-word2vec"
    assert bank.manifest.tokenizer.file == "vocab.txt"
    assert any(note.startswith(f"{ID} is the snapshot") for note in progress.notes)


def test_an_existing_path_wins_and_a_note_says_so(cache: Path, tmp_path: Path):
    local = _write_model(Path.cwd() / ID, 3)
    progress = RecordedProgress()
    bank = _build(ID, tmp_path / "store", progress)
    assert bank.id == _build(local, tmp_path / "other").id != _build(tmp_path / "model1", tmp_path / "other").id
    assert f"{ID} is the local path; the model {ID} in the Hugging Face cache is not used" in progress.notes
    assert cache_note(tmp_path / "model1") is None


def _command(error: BaseException) -> list[str]:
    match = re.search(r"(hf download .*)", str(error))
    assert match is not None
    return shlex.split(match[1])


def test_a_model_that_is_not_cached_is_an_error_with_the_command_that_downloads_it(cache: Path, tmp_path: Path):
    with pytest.raises(
        InputNotFoundError, match="does not exist, and other/model is not in the Hugging Face"
    ) as caught:
        _build("other/model", tmp_path / "store")
    assert caught.value.hint == (
        "download it: hf download other/model --include '*.json' --include '*.safetensors' --include '*.model' "
        "--include '*.tiktoken' --include '*.txt'"
    )
    with pytest.raises(InputNotFoundError) as caught:
        load_tokenizer("other/model@v2")
    assert _command(caught.value)[:5] == ["hf", "download", "other/model", "--revision", "v2"]
    assert "*.safetensors" not in _command(caught.value)
    (Path.cwd() / "other").mkdir()
    with pytest.raises(InputNotFoundError) as caught:
        load_tokenizer("other/model")
    assert caught.value.hint.startswith("check the path, or download the model: hf download other/model")
    with pytest.raises(InputNotFoundError) as caught:
        load_tokenizer("other/tokenizer.json")
    assert caught.value.hint == "check the path"
    assert not (tmp_path / "store").exists()


def test_a_partial_download_is_an_error_with_the_command_that_completes_it(cache: Path, tmp_path: Path):
    snapshot = local_path(Path(ID), "model")
    (snapshot / "model.safetensors").resolve().unlink()
    with pytest.raises(InputNotFoundError, match=r"model.safetensors of .* was not downloaded completely") as caught:
        _build(ID, tmp_path / "store")
    assert _command(caught.value)[:3] == ["hf", "download", ID]
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(InputNotFoundError, match="has no model"):
        _build(ID, tmp_path / "store")
    _write_model(tmp_path / "other", 4)
    (snapshot / "other.safetensors").symlink_to(tmp_path / "other" / "model.safetensors")
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="which is missing") as error:
        _build(ID, tmp_path / "store")
    assert _command(error.value) == [
        "hf", "download", ID, "model-00002-of-00002.safetensors", "--revision", COMMITS[0],
    ]  # fmt: skip


def test_the_command_line_finds_a_model_without_hugging_faces_library_and_without_a_network(
    cache: Path, tmp_path: Path
):
    code = (
        "import socket, sys\n"
        "def refused(*_): raise AssertionError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = refused\n"
        "from costbank_cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    assert 'huggingface_hub' not in sys.modules\n"
    )
    command = ["build", "--source", "lm-head", "--model", ID, "--store", str(tmp_path / "store"), "--for-training"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny-1.5b-lm-head@")
    assert f"{ID} is the snapshot {COMMITS[0]}" in done.stderr
