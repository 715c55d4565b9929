"""Models in the local cache of Hugging Face, by the id `org/name` or `org/name@revision`. Nothing is downloaded.

<cache>/models--org--name/refs/main               the commit of a branch or tag
<cache>/models--org--name/snapshots/<commit>/     the files of a commit, which may be links to `blobs/`
"""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from costbank.errors import InputNotFoundError

__all__ = ["TOKENIZER_FILES", "WEIGHT_FILES", "cache_note", "download_hint", "hub_name", "local_path"]

TOKENIZER_FILES = ("*.json", "*.model", "*.tiktoken", "*.txt")
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf")
"""Patterns of the files that a source or a tokenizer reads."""

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_ID = re.compile(rf"(?P<org>{_PART})/(?P<name>{_PART})(?:@(?P<revision>[^@\s]+))?")
_REFUSED_REVISION = re.compile(r"(^|/)\.{1,2}(/|$)|^/")
_LEAST_COMMIT_DIGITS = 7
_DOWNLOADED = ("*.json", "*.safetensors", *TOKENIZER_FILES[1:])


@dataclass(frozen=True)
class _HubModel:
    """An id of a model on the Hub, with the revision if one is named."""

    id: str
    revision: str | None

    @classmethod
    def named(cls, path: Path) -> "_HubModel | None":
        """The model that a setting names; None if it can only be a path."""
        match = _ID.fullmatch(path.as_posix())
        if not match or _REFUSED_REVISION.search(match["revision"] or ""):
            return None
        return cls(f"{match['org']}/{match['name']}", match["revision"])

    @property
    def folder(self) -> Path:
        return _cache() / f"models--{self.id.replace('/', '--')}"

    def snapshot(self) -> Path | None:
        """The snapshot of the revision; without one, that of `main`, or the only one. None if it is not cached."""
        snapshots = self.folder / "snapshots"
        cached = sorted(path for path in snapshots.glob("*") if path.is_dir())
        revision = self.revision or "main"
        try:
            commit = (self.folder / "refs" / revision).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            commit = revision
        if exact := [path for path in cached if path.name == commit]:
            return exact[0]
        if self.revision and len(commit) >= _LEAST_COMMIT_DIGITS:
            cached = [path for path in cached if path.name.startswith(commit)]
        elif self.revision:
            return None
        return cached[0] if len(cached) == 1 else None

    def cached_revisions(self) -> list[str]:
        """The names of branches and tags, and the commits, that are cached."""
        refs = self.folder / "refs"
        named = sorted(path.relative_to(refs).as_posix() for path in refs.rglob("*") if path.is_file())
        return named or sorted(path.name for path in (self.folder / "snapshots").glob("*"))

    def download(self, files: Sequence[str] = (), patterns: Sequence[str] = ()) -> str:
        """The command that downloads these files, or the files with these patterns."""
        words = ["hf", "download", self.id, *files]
        words += ["--revision", self.revision] if self.revision else []
        words += [word for pattern in patterns for word in ("--include", pattern)]
        return shlex.join(words)


def local_path(path: Path, kind: str, needed: Sequence[str] = TOKENIZER_FILES) -> Path:
    """The path of a file or folder on this machine that a setting names.

    Args:
        path: a path, which is returned if it exists; or `org/name` or `org/name@revision` of a model in the cache.
        kind: what it is, for messages.
        needed: patterns; the cached folder must contain a file with one of them.

    Returns:
        The path itself, or the folder of the snapshot. A path that does not exist and cannot be an id is returned too.

    Raises:
        InputNotFoundError: it is not a path that exists, and the model or its files are not in the cache; the hint is
            the command that downloads them.
    """
    model = None if path.exists() else _HubModel.named(path)
    if model is None or any(path.match(pattern) for pattern in (*WEIGHT_FILES, *TOKENIZER_FILES)):
        return path
    snapshot = model.snapshot()
    patterns = _DOWNLOADED if needed == WEIGHT_FILES else needed
    hint = model.download(patterns=patterns)
    if snapshot is None:
        others = model.cached_revisions()
        raise InputNotFoundError(
            f"the {kind} {path} does not exist, and {model.id}"
            + (f" at revision {model.revision}" if model.revision else "")
            + f" is not in the Hugging Face cache {_cache()}"
            + (f", which has other revisions: {', '.join(others)}" if others else ""),
            f"check the path, or download the model: {hint}" if path.parent.is_dir() else f"download it: {hint}",
        )
    files = [file for pattern in needed for file in snapshot.glob(pattern)]
    if missing := sorted(file.name for file in files if not file.exists()):
        raise InputNotFoundError(f"{missing[0]} of {path} was not downloaded completely", f"download it: {hint}")
    if not files:
        raise InputNotFoundError(f"the cached folder {snapshot} of {path} has no {kind}", f"download it: {hint}")
    return snapshot


def cache_note(path: Path | None) -> str | None:
    """Which folder `local_path` takes for a setting, if it could be either a path or a cached model."""
    model = _HubModel.named(path) if path else None
    snapshot = model.snapshot() if model else None
    if model is None or snapshot is None:
        return None
    if path and path.exists():
        return f"{path} is the local path; the model {model.id} in the Hugging Face cache is not used"
    return f"{path} is the snapshot {snapshot.name} in the Hugging Face cache {_cache()}"


def hub_name(path: Path) -> str | None:
    """The model's name without the organization, of an id or of a cached snapshot; None for other paths."""
    if cached := _cached_model(path):
        return cached.id.rpartition("/")[2]
    model = None if path.exists() else _HubModel.named(path)
    return model.id.rpartition("/")[2] if model else None


def download_hint(file: Path) -> str:
    """What to do about a missing file of a model: for a cached snapshot, the command that downloads it."""
    model = _cached_model(file.parent)
    return f"download it: {model.download([file.name])}" if model else "download that file"


def _cached_model(snapshot: Path) -> _HubModel | None:
    """The id and the commit of a folder of a snapshot; None for other folders."""
    folders = snapshot.absolute().parts[-3:]
    if len(folders) < 3 or folders[1] != "snapshots" or not folders[0].startswith("models--"):
        return None
    return _HubModel(folders[0].removeprefix("models--").replace("--", "/", 1), folders[2])


def _cache() -> Path:
    """The cache directory, by the environment variables that Hugging Face's own tools read."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"
