"""The sha256 of each corpus file, cached until the file changes.

A file counts as unchanged while its device, inode, size, mtime and ctime are the same. The digest of a file that was
modified less than two seconds before it was read is not cached, because a later change might not show in its times.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from costbank.corpus.readers import CorpusFile, index_of, remote_version
from costbank.engines import Engine, Report
from costbank.errors import CorpusError
from costbank.files import FileDigest, sha256_file, write_atomically
from costbank.progress import Progress

__all__ = ["FileContent", "FileState", "file_contents", "refuse_changed"]

_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class FileState:
    """The properties that reveal a change of a file: device, inode, size in bytes, times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileState":
        stat = path.stat()
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@dataclass(frozen=True)
class FileContent:
    """A corpus file, and the identity of its content.

    Attributes:
        file: the corpus file.
        content: the sha256 of the file, followed by that of its index if it has one. For a remote file, its URL and the
            version that its server reports, because its digest is known only after the download.
        size: bytes.
        states: the states of the file and its index when they were digested; empty for a remote file.
    """

    file: CorpusFile
    content: str
    size: int
    states: tuple[tuple[Path, FileState], ...]


def file_contents(files: Sequence[CorpusFile], engine: Engine, cache: Path, progress: Progress) -> list[FileContent]:
    """Identify the content of each file; a file without a cached digest is read.

    Raises:
        CorpusError: a file cannot be read, or was changed while it was being read.
    """
    local = [file for file in files if not file.is_remote]
    shards = [
        _DigestShard(path, cache / "digests")
        for path in dict.fromkeys(path for file in local for path in (file.path, index_of(file)) if path)
    ]
    digests = {shard.path: cached for shard in shards if (cached := _cached_digest(shard))}
    missing = [shard for shard in shards if shard.path not in digests]
    if missing:
        with progress.step("digest files", sum(file.size for file in local), "bytes") as step:
            for number, result in engine.run(_digest_file, missing, step.advance):
                digests[missing[number].path] = result
    return [_content(file, digests) for file in files]


def _content(file: CorpusFile, digests: dict[Path, tuple[FileState, FileDigest]]) -> FileContent:
    if file.is_remote:
        return FileContent(file, f"{file.location} {remote_version(file)}", file.size, ())
    paths = [path for path in (file.path, index_of(file)) if path]
    content = " ".join(digests[path][1].sha256 for path in paths)
    return FileContent(file, content, digests[file.path][1].size, tuple((path, digests[path][0]) for path in paths))


@dataclass(frozen=True)
class _DigestShard:
    """A file to digest, and the directory of cached digests."""

    path: Path
    cache: Path

    @property
    def record(self) -> Path:
        """The file of the cache that stores this digest."""
        name = sha256(str(self.path.resolve()).encode(errors="surrogateescape")).hexdigest()
        return self.cache / name[:2] / f"{name[2:32]}.json"


def _cached_digest(shard: _DigestShard) -> tuple[FileState, FileDigest] | None:
    """The cached state and digest; None if they are missing or the file has changed since."""
    try:
        record = json.loads(shard.record.read_bytes())
        state, digest = FileState(**record["state"]), FileDigest(**record["digest"])
        return (state, digest) if FileState.of(shard.path) == state else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _digest_file(shard: _DigestShard, report: Report) -> tuple[FileState, FileDigest]:
    """Digest a file, and cache the digest. Runs in an engine.

    Raises:
        CorpusError: the file cannot be read, or was changed while it was being read.
    """
    try:
        state, digest = FileState.of(shard.path), sha256_file(shard.path)
    except OSError as error:
        raise CorpusError(f"{shard.path} cannot be read: {error.strerror}", "check the file and its disk") from error
    report(digest.size)
    refuse_changed([(shard.path, state)])
    if time.time_ns() - max(state.modified_ns, state.changed_ns) > _SETTLED_NS:
        record = {"path": str(shard.path), "state": asdict(state), "digest": asdict(digest)}
        write_atomically(shard.record, json.dumps(record).encode())
    return state, digest


def refuse_changed(states: Iterable[tuple[Path, FileState]]) -> None:
    """Check that files are unchanged since their states were taken.

    Raises:
        CorpusError: a file was changed or deleted.
    """
    for path, state in states:
        if not path.exists() or FileState.of(path) != state:
            raise CorpusError(
                f"{path} was changed while it was being read",
                "run the build again when no process is writing to the file",
            )
