"""Copy a bank to a bucket or the Hub, so that others open it by URL."""

import posixpath
from pathlib import Path
from typing import Any

from costbank.bank.layout import INDEX, MANIFEST, MAP, ROWS
from costbank.bank.manifest import Manifest, load_manifest
from costbank.bank.verify import verify_bank
from costbank.errors import CorruptBankError, RemoteError, UsageError, require
from costbank.progress import Progress, QuietProgress
from costbank.remote.addresses import BankAddress, parse_address
from costbank.remote.buckets import passing_errors
from costbank.remote.hub import HUB_HINT
from costbank.remote.retries import TransientError
from costbank.urls import remote_filesystem

__all__ = ["push_bank"]

_DIRECTORIES = frozenset(["file", "local", "sftp", "ssh", "smb", "hdfs", "webhdfs", "memory", "dir"])
"""Filesystems with real directories. In a bucket there are none, and asking for one would create the bucket."""


def push_bank(path: str | Path, url: str, *, progress: Progress | None = None) -> str:
    """Copy a bank, as plain files, to a bucket or to a repository of the Hugging Face Hub.

    Every file is checked first. In a bucket, the manifest is written after all other files, and `latest` after it, so
    that a reader never sees an incomplete bank. On the Hub, all files are one commit; a missing repository is created.

    Args:
        path: the bank's directory.
        url: `s3://BUCKET/PATH/NAME` and the like, without an id; or `hf://ORGANIZATION/REPOSITORY`, where a branch may
            follow an @.
        progress: receives the progress.

    Returns:
        The URL that refers to exactly this bank.

    Raises:
        UsageError: the URL is that of a costbank service, which is read-only, or has an id.
        CorruptBankError, BankNotFoundError: the bank is damaged, or there is none.
        RemoteError: the copy is refused, or fails.
        MissingExtraError: a library is not installed.
    """
    path, progress = Path(path), progress or QuietProgress()
    address = parse_address(url)
    if address.kind == "service":
        raise UsageError(
            f"{url}: a costbank service is read-only", "push to a bucket or the Hub, or copy into the service's store"
        )
    if address.prefix:
        raise UsageError(f"{url} has an id, which follows from the bank", f"give {address.base}/{address.name}")
    manifest = load_manifest(path)
    with progress.step("check the bank", sum(file.size for file in manifest.files.values()), "bytes") as step:
        damaged = [check for check in verify_bank(path, step.advance) if not check.ok]
    if damaged:
        raise CorruptBankError(
            f"{path} is damaged: {damaged[0].name}: {damaged[0].problem}", "build or copy the bank again, then push it"
        )
    try:
        push = _to_hub if address.kind == "hub" else _to_bucket
        with passing_errors(url):
            return push(path, manifest, address, progress)
    except TransientError as error:
        raise RemoteError(f"{url}: {error.reason}", "run it again; what others can open is unchanged") from error
    except FileNotFoundError as error:
        raise RemoteError(f"{url} does not exist: {error}", "create the bucket, or check the URL") from error


def _to_bucket(path: Path, manifest: Manifest, address: BankAddress, progress: Progress) -> str:
    filesystem, base = remote_filesystem(address.base, "remote")
    directory = posixpath.join(base, address.name)
    place = posixpath.join(directory, manifest.id)
    filesystem.invalidate_cache()
    if filesystem.exists(f"{place}/{MANIFEST}"):  # a bucket has no locks, so nothing under an id is changed there
        if MAP in manifest.files and not filesystem.exists(f"{place}/{MAP}"):
            progress.note(f"{address.url}@{manifest.id} exists already, without a map, and stays without one")
    else:
        protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else {*filesystem.protocol}
        if protocols & _DIRECTORIES:
            filesystem.makedirs(place, exist_ok=True)
        _upload(filesystem, path, manifest, place, progress)
    filesystem.pipe_file(f"{directory}/latest", f"{manifest.id}\n".encode())
    return f"{address.url}@{manifest.id}"


def _upload(filesystem: Any, path: Path, manifest: Manifest, place: str, progress: Progress) -> None:
    with progress.step("upload", sum(file.size for file in manifest.files.values()), "bytes") as step:
        for name, digest in sorted(manifest.files.items()):
            filesystem.put_file(str(path / name), f"{place}/{name}")
            step.advance(digest.size)
        filesystem.invalidate_cache()
        for name, digest in manifest.files.items():
            size = filesystem.info(f"{place}/{name}")["size"]
            if size != digest.size:
                raise RemoteError(f"{place}/{name} has {size} bytes after its upload", "run it again")
        filesystem.pipe_file(f"{place}/{MANIFEST}", (path / MANIFEST).read_bytes())


def _to_hub(path: Path, manifest: Manifest, address: BankAddress, progress: Progress) -> str:
    hub: Any = require("huggingface_hub", "remote")
    api, errors = hub.HfApi(), hub.errors
    files = {*manifest.files, MANIFEST}
    operations = [hub.CommitOperationAdd(name, str(path / name)) for name in sorted(files)]
    try:
        api.create_repo(address.base, exist_ok=True)
        present = api.list_repo_files(address.base, revision=address.revision or None)
        # Optional files of the bank that was there before.
        operations += [
            hub.CommitOperationDelete(name) for name in sorted({INDEX, MAP, ROWS}.intersection(present) - files)
        ]
        with progress.step("upload"):
            commit = api.create_commit(
                address.base, operations, commit_message=f"Cost bank {manifest.id}", revision=address.revision or None
            )
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403, 404):
            raise RemoteError(f"{address.url}: the Hub refuses the upload ({status})", HUB_HINT) from error
        raise
    return f"hf://{address.base}@{commit.oid}"
