"""Files and directories: checked before long work, and written so that readers never see an incomplete one."""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from costbank.encodings import TextFault, decoded_text, encoding_fault
from costbank.errors import CorpusError, InputError, InputNotFoundError, StorageError

__all__ = [
    "STAGING_PREFIX",
    "FileDigest",
    "InputFile",
    "check_readable",
    "fsync_directory",
    "is_abandoned",
    "locked",
    "no_abandoned",
    "remove_half_made",
    "remove_if_empty",
    "sha256_file",
    "staging_directory",
    "storage_errors",
    "text_blocks",
    "text_lines",
    "tree_bytes",
    "write_atomically",
]

STAGING_PREFIX = ".staging-"
_BLOCK_BYTES = 4 << 20
_HASH_CHUNK_BYTES = 8 << 20
_MOST_ATTEMPTS = 1_000
_half_made: dict[Path, tuple[Path, ...]] = {}
"""Staged files and directories of this process, each with the parent directories that were created for it."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class FileDigest:
    """A file's size in bytes and its sha256 in hexadecimal."""

    size: int
    sha256: str

    def named(self, name: str) -> "InputFile":
        return InputFile(name, self.size, self.sha256)


@dataclass(frozen=True)
class InputFile:
    """An input of a bank as its manifest records it: a file, or a tensor in one, with its name, size and sha256."""

    name: str
    size: int
    sha256: str


def sha256_file(path: Path) -> FileDigest:
    """Size and sha256 of a file, which is read in chunks."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileDigest(size, digest.hexdigest())


def check_readable(path: Path, kind: str) -> None:
    """Check that `path` is a readable file with content; `kind` describes it in messages.

    Raises:
        InputNotFoundError: it does not exist.
        InputError: it is a directory, another kind of file, unreadable or empty.
    """
    if not path.exists():
        raise InputNotFoundError(f"the {kind} {path} does not exist", "check the path")
    if path.is_dir():
        raise InputError(f"the {kind} {path} is a directory", "give a file")
    if not path.is_file():
        raise InputError(f"the {kind} {path} is not a regular file", "copy its content to a file first")
    if not os.access(path, os.R_OK):
        raise InputError(f"you do not have permission to read the {kind} {path}", f"chmod +r {path}")
    if path.stat().st_size == 0:
        raise InputError(f"the {kind} {path} is empty", "give a file with content")


def text_blocks(path: Path) -> Iterator[tuple[str, int]]:
    """A UTF-8 text file in blocks of whole lines, each with its size in bytes.

    CRLF becomes LF, and a byte-order mark at the start is skipped.

    Raises:
        CorpusError: the file is not UTF-8 text; the message names the offset of the first bad byte.
    """
    offset = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            data = block if b"\0" in block else block + file.readline()  # binary data may have no line ends
            text = decoded_text(data, skip_mark=offset == 0)
            if isinstance(text, TextFault):
                fault, hint = encoding_fault(data, text.reason, lambda encoding: encoding.conversion(str(path)))
                raise CorpusError(f"{path} {fault} at offset {offset + text.byte}", hint)
            yield text.replace("\r\n", "\n"), len(data)
            offset += len(data)


def text_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, without their ends.

    Raises:
        CorpusError: see `text_blocks`.
    """
    return "".join(text for text, _ in text_blocks(path)).removesuffix("\n").split("\n")


@contextmanager
def storage_errors(directory: Path) -> Iterator[None]:
    """Turn the error of a full disk or a refused write into a `StorageError` that names the directory."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageError(
                f"no space left in {directory}; incomplete files were removed",
                "free some space, or give another directory with --store, --cache or --out",
            ) from error
        if error.errno in (
            errno.EACCES,
            errno.EROFS,
            errno.ENOENT,
            errno.EPERM,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EEXIST,
        ):
            raise StorageError(
                f"cannot write to {directory}: {error.strerror}",
                "give a writable directory with --store, --cache or --out",
            ) from error
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a temporary file in the same directory, fsync it, and rename it to `path`.

    Raises:
        StorageError: the disk is full, or the directory cannot be written.
    """
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, staged = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        _half_made[Path(staged)] = ()
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
            Path(staged).replace(path)
        except BaseException:
            Path(staged).unlink(missing_ok=True)
            raise
        finally:
            _half_made.pop(Path(staged), None)
        fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make renames inside a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def staging_directory(parent: Path, prefix: str = STAGING_PREFIX) -> Iterator[Path]:
    """A new directory in `parent` to write into and rename; if it was not renamed, it is removed on exit.

    The directory is locked while it is in use. A lock ends with its process, so the next process that stages in
    `parent` detects and removes directories of dead processes. Therefore every name in `parent` that begins with
    `prefix` must be a staging directory.
    """
    with ExitStack() as locks:
        missing = [ancestor for ancestor in (parent, *parent.parents) if not ancestor.exists()]
        for ancestor in reversed(missing):
            locks.callback(remove_if_empty, ancestor)
        directory = _staged_in(parent, prefix, locks)
        _half_made[directory] = tuple(missing)
        directory.chmod(0o755)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            _half_made.pop(directory, None)


def remove_half_made() -> None:
    """Remove all incomplete files and directories of this process. Any thread may call it just before `os._exit`."""
    for staged, parents in list(_half_made.items()):
        if staged.is_dir():
            shutil.rmtree(staged, ignore_errors=True)
        else:
            staged.unlink(missing_ok=True)
        for parent in parents:
            remove_if_empty(parent)


@contextmanager
def no_abandoned(parent: Path, prefix: str = STAGING_PREFIX) -> Iterator[None]:
    """On exit, delete staging directories of dead processes in `parent`, and `parent` itself if it is empty."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError):  # another process may remove `parent` at any time
            _remove_abandoned(parent, prefix)
        remove_if_empty(parent)


def _staged_in(parent: Path, prefix: str, locks: ExitStack) -> Path:
    for attempt in range(_MOST_ATTEMPTS):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with locked(parent):
                _remove_abandoned(parent, prefix)
                directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
                locks.enter_context(locked(directory))
            return directory
        except (FileNotFoundError, FileExistsError):
            # Another process created `parent`, failed, and has just removed it.
            if attempt == _MOST_ATTEMPTS - 1 or _is_other_file(parent):
                raise
    raise AssertionError


def _is_other_file(path: Path) -> bool:
    """Whether the path exists and is not a directory, in one call, because it may change between two calls."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return False


def remove_if_empty(directory: Path) -> None:
    """Remove a directory that exists and is empty."""
    with suppress(OSError):
        directory.rmdir()


def is_abandoned(staged: Path) -> bool:
    """Whether the process that wrote into a staging directory is gone.

    The caller holds the lock of the parent directory: a new staging directory is unlocked for a moment.
    """
    try:
        with locked(staged, wait=False):
            return True
    except OSError:
        return False


def tree_bytes(path: Path) -> int:
    """The sum of the sizes of the files in a directory, or the size of a file; links are not followed."""
    total = 0
    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    for file in files if path.is_dir() and not path.is_symlink() else [path]:
        with suppress(FileNotFoundError):  # another process may delete it at any time
            total += file.lstat().st_size
    return total


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for staged in parent.glob(f"{prefix}*"):
        with suppress(OSError), locked(staged, wait=False):
            shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def locked(directory: Path, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Lock a directory until the end of the block or of this process. Several processes can share a lock.

    Raises:
        BlockingIOError: another process has the lock, and `wait` is false.
        FileNotFoundError: the directory does not exist, or the last process with the lock removed or replaced it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        if not os.path.samestat(os.fstat(descriptor), directory.stat()):
            raise FileNotFoundError(errno.ENOENT, "replaced by another directory", str(directory))
        yield
    finally:
        os.close(descriptor)
