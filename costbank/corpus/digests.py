"""The sha256 of a corpus file's content, remembered for as long as nothing has touched the file.

A file counts as untouched while its device, inode, size and both times are what they were. A file that was modified
in the very moment before it was read is not remembered: its times might not tell the next change.
"""

import json
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from costbank.engines import Report
from costbank.errors import CorpusError
from costbank.files import write_atomically
from costbank.tensorfile import FileDigest, sha256_file

__all__ = ["DigestShard", "FileState", "digest_file", "refuse_changed", "remembered_digest"]

_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class FileState:
    """What tells whether a file was written since: device, inode, bytes, nanoseconds."""

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
class DigestShard:
    """A file to digest, and where that is remembered."""

    path: Path
    memory: Path


def remembered_digest(shard: DigestShard) -> tuple[FileState, FileDigest] | None:
    """What is known of a file that was not touched since."""
    try:
        known = json.loads(_place(shard).read_bytes())
        state, digest = FileState(**known["state"]), FileDigest(**known["digest"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (state, digest) if FileState.of(shard.path) == state else None


def digest_file(shard: DigestShard, report: Report) -> tuple[FileState, FileDigest]:
    """Read a whole file, and remember its digest.

    Raises:
        CorpusError: it was written while it was read.
    """
    state = FileState.of(shard.path)
    digest = sha256_file(shard.path)
    report(digest.size)
    refuse_changed(shard.path, state)
    if time.time_ns() - max(state.modified_ns, state.changed_ns) > _SETTLED_NS:
        known = {"path": str(shard.path), "state": asdict(state), "digest": asdict(digest)}
        write_atomically(_place(shard), json.dumps(known).encode())
    return state, digest


def refuse_changed(path: Path, state: FileState) -> None:
    """Make sure that a file is what it was.

    Raises:
        CorpusError: it was written since.
    """
    if FileState.of(path) != state:
        raise CorpusError(f"{path} was changed while it was read", "build again when nothing writes to it")


def _place(shard: DigestShard) -> Path:
    name = sha256(str(shard.path.resolve()).encode(errors="surrogateescape")).hexdigest()
    return shard.memory / name[:2] / f"{name[2:32]}.json"
