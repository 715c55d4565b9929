"""The sha256 of a corpus file's content, remembered for as long as nothing has touched the file.

A file counts as untouched while its device, inode, size and both times are what they were. A file that was modified
just before it was read is not remembered: its times might not show the next change.
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
    """What shows whether a file was written since: device, inode, bytes, nanoseconds."""

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
    """A file of a corpus, and what identifies its content.

    Attributes:
        content: the sha256 of the file, and of its index where it has one; for a remote file its version as the server
            gives it, since its digest is known only once it is fetched.
        size: in bytes.
        states: of the file and its index, as they were when they were digested; none of a remote file.
    """

    file: CorpusFile
    content: str
    size: int
    states: tuple[tuple[Path, FileState], ...]


def file_contents(files: Sequence[CorpusFile], engine: Engine, cache: Path, progress: Progress) -> list[FileContent]:
    """The contents of the files; those that are not remembered are digested.

    Raises:
        CorpusError: a file was written while it was read.
    """
    local = [file for file in files if not file.is_remote]
    shards = [
        _DigestShard(path, cache / "digests")
        for path in dict.fromkeys(path for file in local for path in (file.path, index_of(file)) if path)
    ]
    known = {shard.path: _remembered(shard) for shard in shards}
    unknown = [shard for shard in shards if known[shard.path] is None]
    if unknown:
        with progress.step("digest files", sum(file.size for file in local), "bytes") as step:
            for number, result in engine.run(_digest_file, unknown, step.advance):
                known[unknown[number].path] = result
    digests = {path: result for path, result in known.items() if result}
    return [_content(file, digests) for file in files]


def _content(file: CorpusFile, digests: dict[Path, tuple[FileState, FileDigest]]) -> FileContent:
    if file.is_remote:
        return FileContent(file, f"{file.location} {remote_version(file)}", file.size, ())
    paths = [path for path in (file.path, index_of(file)) if path]
    content = " ".join(digests[path][1].sha256 for path in paths)
    return FileContent(file, content, digests[file.path][1].size, tuple((path, digests[path][0]) for path in paths))


@dataclass(frozen=True)
class _DigestShard:
    """A file to digest, and the folder that remembers digests."""

    path: Path
    memory: Path

    @property
    def record(self) -> Path:
        """The file that remembers this digest."""
        name = sha256(str(self.path.resolve()).encode(errors="surrogateescape")).hexdigest()
        return self.memory / name[:2] / f"{name[2:32]}.json"


def _remembered(shard: _DigestShard) -> tuple[FileState, FileDigest] | None:
    """The remembered state and digest of a file that was not touched since."""
    try:
        known = json.loads(shard.record.read_bytes())
        state, digest = FileState(**known["state"]), FileDigest(**known["digest"])
        return (state, digest) if FileState.of(shard.path) == state else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _digest_file(shard: _DigestShard, report: Report) -> tuple[FileState, FileDigest]:
    """Read a whole file, and remember its digest.

    Raises:
        CorpusError: it was written while it was read.
    """
    try:
        state, digest = FileState.of(shard.path), sha256_file(shard.path)
    except OSError as error:
        raise CorpusError(f"{shard.path} cannot be read: {error.strerror}", "check the file and its disk") from error
    report(digest.size)
    refuse_changed([(shard.path, state)])
    if time.time_ns() - max(state.modified_ns, state.changed_ns) > _SETTLED_NS:
        known = {"path": str(shard.path), "state": asdict(state), "digest": asdict(digest)}
        write_atomically(shard.record, json.dumps(known).encode())
    return state, digest


def refuse_changed(states: Iterable[tuple[Path, FileState]]) -> None:
    """Make sure that files are what they were.

    Raises:
        CorpusError: one was written since, or is gone.
    """
    for path, state in states:
        if not path.exists() or FileState.of(path) != state:
            raise CorpusError(f"{path} was changed while it was read", "build again when nothing writes to it")
