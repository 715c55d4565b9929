"""The files of a bank: whole or in part, with conditions, so that clients can cache them and resume a download."""

import logging
import os
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from costbank.bank.layout import ID_DIGITS, MANIFEST, MAP
from costbank.bank.manifest import REPAIR
from costbank.errors import CorruptBankError
from costbank.files import FileDigest
from costbank_service.bank_cache import BankCache
from costbank_service.dependencies import banks_of
from costbank_service.problems import ServiceError, problem, problem_responses
from costbank_service.query_string import query_reader

__all__ = ["FileNotListedError", "byte_range", "router"]

_CHUNK_BYTES = 1 << 20
_IMMUTABLE = "max-age=31536000, immutable"
_REVALIDATE = "no-cache"
_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)
_TYPES = {".json": "application/json", ".md": "text/markdown; charset=utf-8"}
_ANY = "application/octet-stream"
_HEADERS = {
    "ETag": "the file's sha256 in hexadecimal, in quotes",
    "Repr-Digest": "the file's sha256 (RFC 9530)",
    "Cache-Control": "`immutable` if the reference has all 16 digits of the id, else `no-cache`; always `no-cache` for "
    "`manifest.json` and `map.safetensors`, which change if a map is added to the bank",
}
_CONTENT = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (_ANY, *_TYPES.values())}
_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": _CONTENT,
        "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
    },
    206: {"description": "The part that `Range` asks for", "content": _CONTENT},
    304: {"description": "The client has this file: its ETag is in `If-None-Match`"},
}

logger = logging.getLogger("costbank.service")

router = APIRouter(prefix="/v1/banks", tags=["banks"], responses=problem_responses(400))

Banks = Annotated[BankCache, Depends(banks_of)]


class FileNotListedError(ServiceError):
    code = "file-not-listed"
    title = "No such file"
    http_status = 404


@dataclass(frozen=True)
class _OpenFile:
    """A file that stays open, so that its bytes stay the same if another file takes its place."""

    handle: BinaryIO
    digest: FileDigest


@router.get(
    "/{ref}/files/{file}", response_class=Response, dependencies=[Depends(query_reader(()))],
    responses={**_DOCUMENTED, **problem_responses(404, 500)},
)  # fmt: skip
async def download(ref: str, file: str, request: Request, banks: Banks) -> Response:
    """Download a file of a bank: `manifest.json`, or a file that the manifest lists.

    A single `Range` is answered with 206, and with 416 if the file has no such bytes. `If-Range`, `If-None-Match` and
    `If-Match` compare ETags.
    """
    name, opened = await run_in_threadpool(_open, banks, ref, file)
    digest = opened.digest
    etag = f'"{digest.sha256}"'
    headers = {
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(digest.sha256)).decode()}:",
        "Cache-Control": _IMMUTABLE if _names_bytes(ref, name, file) else _REVALIDATE,
        "Accept-Ranges": "bytes",
    }  # fmt: skip
    part = _requested(request, etag, digest.size)
    answer = _conditional(request, etag, digest.size, part, headers)
    if answer is not None:
        opened.handle.close()
        return answer
    start, end = part or (0, digest.size)
    status = 206 if part else 200
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{digest.size}"
    headers["Content-Length"] = str(end - start)
    kind = _TYPES.get(Path(file).suffix, _ANY)
    if request.scope.get("requested_method") == "HEAD":
        opened.handle.close()
        return Response(None, status, headers, kind)
    return StreamingResponse(_chunks(opened.handle, start, end), status, headers, kind)


def _names_bytes(ref: str, name: str, file: str) -> bool:
    """Whether a reference and a file mean the same bytes forever. A map can be added to a bank at any time."""
    has_whole_id = ref.startswith(f"{name}@") and len(ref) == len(name) + 1 + ID_DIGITS
    return has_whole_id and file not in (MANIFEST, MAP)


def _open(banks: BankCache, ref: str, file: str) -> tuple[str, _OpenFile]:
    """The name of the bank, and one of its files.

    Raises:
        BankNotFoundError, UsageError, CorruptBankError: see `BankCache.using`.
        FileNotListedError: the manifest does not list the file.
    """
    return banks.using(ref, lambda directory: (directory.parent.name, _opened(directory, file, banks)))


def _opened(directory: Path, file: str, banks: BankCache) -> _OpenFile:
    manifest, path = banks.manifest_at(directory), directory / file
    if file != MANIFEST and (file not in manifest.files or not _is_plain(file)):
        raise FileNotListedError(
            "the bank has no such file", f"the files are: {', '.join((MANIFEST, *sorted(manifest.files)))}"
        )
    try:
        handle = path.open("rb")
    except OSError as error:
        raise CorruptBankError(f"{path} cannot be read: {error.strerror}", REPAIR) from None
    if file == MANIFEST:
        data = handle.read()
        handle.seek(0)
        return _OpenFile(handle, FileDigest(len(data), sha256(data).hexdigest()))
    size = os.fstat(handle.fileno()).st_size
    if size != manifest.files[file].size:
        handle.close()
        raise CorruptBankError(f"{path} has {size:,} bytes instead of {manifest.files[file].size:,}", REPAIR)
    return _OpenFile(handle, manifest.files[file])


def _is_plain(file: str) -> bool:
    """Whether a name in a manifest, which may come from another machine, names a file in the bank's directory."""
    return not file.startswith(".") and Path(file).name == file


def _conditional(
    request: Request, etag: str, size: int, part: tuple[int, int] | None, headers: dict[str, str]
) -> Response | None:
    """The answer to a request whose conditions do not hold, or whose range the file does not have."""
    wanted, known = request.headers.get("if-match"), request.headers.get("if-none-match")
    if wanted is not None and wanted.strip() != "*" and etag not in _tags(wanted, weak=False):
        return problem(
            request, 412, "precondition-failed", "The file changed", "the file has another ETag than If-Match asks for",
            "ask for the file without If-Match", headers,
        )  # fmt: skip
    if known is not None and (known.strip() == "*" or etag in _tags(known, weak=True)):
        return Response(None, 304, headers)
    if part is not None and part[0] >= part[1]:
        return problem(
            request, 416, "range-not-satisfiable", "No such bytes", f"the file has {size:,} bytes",
            f"ask for bytes from 0 to {max(size - 1, 0)}", headers | {"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return None


def _tags(header: str, weak: bool) -> list[str]:
    """The entity tags of a header; weak ones count as the same tag, or not at all."""
    tags = [tag.strip() for tag in header.split(",")]
    return [tag.removeprefix("W/") for tag in tags] if weak else [tag for tag in tags if not tag.startswith("W/")]


def _requested(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """The start and end of the part that a request asks for; None if it asks for the whole file."""
    header = request.headers.get("range")
    if header is None or request.headers.get("if-range", etag).strip() != etag:
        return None
    return byte_range(header, size)


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The start and end of a single range of bytes. The end is not above the start if the file has no such bytes.

    Several ranges, and ranges that are not well-formed, count as a request for the whole file, which RFC 9110 allows.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size if int(last) else 0
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


async def _chunks(handle: BinaryIO, start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes of a part of a file. If the file becomes shorter, the connection is closed before the promised end."""
    try:
        while start < end:
            chunk = await run_in_threadpool(os.pread, handle.fileno(), min(_CHUNK_BYTES, end - start), start)
            if not chunk:
                logger.error("a file of a bank became shorter while it was sent")
                return
            start += len(chunk)
            yield chunk
    finally:
        handle.close()
