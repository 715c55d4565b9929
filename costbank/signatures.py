"""The kind of a file by its first bytes, independent of its name, for messages about files of an unexpected kind.

The marks are from the formats' specifications.
"""

from dataclasses import dataclass

__all__ = ["SIGNATURE_BYTES", "Signature", "signature_of"]

SIGNATURE_BYTES = 4096
"""The number of bytes at the start of a file that `signature_of` needs."""


@dataclass(frozen=True)
class Signature:
    """A kind of file: a short key, and its description in messages."""

    kind: str
    name: str


_STARTS: tuple[tuple[bytes, Signature], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        Signature("lfs", "a Git LFS pointer, not the file that it points to"),
    ),
    (b"/annex/objects/", Signature("annex", "a git-annex pointer, not the file that it points to")),
    (b"%PDF-", Signature("pdf", "a PDF document")),
    (b"{\\rtf", Signature("rtf", "an RTF document")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Signature("doc", "an old Microsoft Office document")),
    (b"\xfd7zXZ\0", Signature("xz", "an xz archive")),
    (b"\x04\x22\x4d\x18", Signature("lz4", "an lz4 archive")),
    (b"7z\xbc\xaf\x27\x1c", Signature("7z", "a 7z archive")),
    (b"Rar!\x1a\x07", Signature("rar", "a rar archive")),
    (b"\x1f\x8b", Signature("gz", "a gzip archive")),
    (b"\x28\xb5\x2f\xfd", Signature("zst", "a Zstandard archive")),
    (b"PAR1", Signature("parquet", "a Parquet file")),
    (b"ARROW1\0\0", Signature("arrow", "an Arrow file")),
    (b"FEA1", Signature("arrow", "a Feather file")),
    (b"\x93NUMPY", Signature("npy", "a NumPy array (.npy)")),
    (b"GGUF", Signature("gguf", "a GGUF model")),
    (b"\xba\x16\x4f\x2f", Signature("fasttext", "a fastText model (.bin)")),
    (b"SQLite format 3\0", Signature("sqlite", "an SQLite database")),
    (b"\x89HDF\r\n\x1a\n", Signature("hdf5", "an HDF5 file")),
    (b"MATLAB 5.0 MAT-file", Signature("mat", "a MATLAB file")),
    (b"%%MatrixMarket", Signature("matrix-market", "a Matrix Market file")),
    (b"MMIDIDX\0\0", Signature("megatron-index", "the index of Megatron token ids (.idx)")),
    (b"\x89PNG\r\n\x1a\n", Signature("image", "a PNG image")),
    (b"\xff\xd8\xff", Signature("image", "a JPEG image")),
    (b"\x7fELF", Signature("program", "a program")),
    (b"model_checkpoint_path:", Signature("tensorflow", "a TensorFlow checkpoint")),
)
_PICKLE = Signature("pickle", "a Python pickle")
_GENSIM = Signature("gensim", "a gensim pickle (vectors or a model)")
_HTML = Signature("html", "an HTML page")
_XML_ERROR = Signature("xml-error", "a server's error message in XML")
_TAR = Signature("tar", "a tar archive")
_TAR_MARK, _TAR_AT = b"ustar", 257
_SAFETENSORS = Signature("safetensors", "a safetensors file")
_ZIPS = (
    (b"data.pkl", Signature("torch", "a PyTorch file")),
    (b"indices.npy", Signature("sparse", "a SciPy sparse matrix (.npz)")),
    (b"row.npy", Signature("sparse", "a SciPy sparse matrix (.npz)")),
    (b".npy", Signature("npz", "an archive of NumPy arrays (.npz)")),
    (b"[Content_Types].xml", Signature("office", "a Microsoft Office document")),
    (b"mimetypeapplication/epub", Signature("epub", "an EPUB book")),
    (b"mimetypeapplication/vnd.oasis", Signature("office", "an OpenDocument file")),
    (b"", Signature("zip", "a zip archive")),
)


def signature_of(head: bytes) -> Signature | None:
    """The kind of a file that begins with `head`, of `SIGNATURE_BYTES`; None if it may be text or plain binary data."""
    by_start = next((signature for mark, signature in _STARTS if head.startswith(mark)), None)
    if by_start:
        return by_start
    if head.startswith(b"PK\x03\x04"):
        return next(signature for mark, signature in _ZIPS if mark in head)
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        return Signature("bz2", "a bzip2 archive")
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return _GENSIM if b"gensim" in head else _PICKLE
    if head.startswith(b"\xff\xff\xff\xff") and head[8:12] == b"\x10\0\0\0":
        return Signature("arrow", "an Arrow stream")
    if head[_TAR_AT : _TAR_AT + len(_TAR_MARK)] == _TAR_MARK:
        return _TAR
    if head[8:9] == b"{" and b'"dtype"' in head and int.from_bytes(head[:8], "little") < 1 << 32:
        return _SAFETENSORS
    return _markup(head)


def _markup(head: bytes) -> Signature | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:512].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return _HTML
    if start.startswith((b"<?xml", b"<error")) and b"<error>" in start and b"<code>" in start:
        return _XML_ERROR
    return None
