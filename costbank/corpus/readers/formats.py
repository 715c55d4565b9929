"""The description of a corpus file: its format and compression, and parts of it.

The suffix determines the format. The first bytes determine the compression, so a compressed file needs no suffix such
as `.gz`. Files of token ids are an exception: ids can start with any bytes, and the files are mapped as they are
stored.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from costbank.encodings import Encoding
from costbank.urls import is_url

__all__ = [
    "TOKEN_FORMATS",
    "WHOLE",
    "Compression",
    "CorpusFile",
    "FileFormat",
    "FormatName",
    "Part",
    "compression_of",
    "index_of",
    "known_suffixes",
    "partner_of",
    "suffix_of",
]

TextFormat = Literal["text", "jsonl", "parquet"]
TokenFormat = Literal["megatron", "llmc", "nanogpt", "raw-u16", "raw-u32", "raw-u64", "datatrove", "npy"]
FileFormat = Literal[TextFormat, TokenFormat]
FormatName = Literal["auto", FileFormat]
Compression = Literal["none", "gz", "zst"]

TOKEN_FORMATS: tuple[TokenFormat, ...] = get_args(TokenFormat)

_SUFFIXES: dict[FileFormat, tuple[str, ...]] = {
    "text": (".txt", ".text", ".md"),
    "jsonl": (".jsonl", ".ndjson", ".jsonlines", ".json"),
    "parquet": (".parquet", ".pq"),
    "megatron": (".bin",),
    "llmc": (".bin",),
    "nanogpt": (".bin",),
    "raw-u16": (".bin",),
    "raw-u32": (".bin",),
    "raw-u64": (".bin",),
    "datatrove": (".ds",),
    "npy": (".npy",),
}
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd")
_UNPACKERS: dict[Compression, str] = {"none": "", "gz": "gzip -dc", "zst": "zstd -dc"}


@dataclass(frozen=True)
class CorpusFile:
    """One file of a corpus.

    Attributes:
        location: a path, or the URL of a remote file.
        format: the format of its content, after decompression.
        compression: the compression of the stored bytes.
        size: stored bytes; 0 if the server does not report the size.
        title: the name in messages for a file without a name of its own, such as standard input.
    """

    location: str
    format: FileFormat
    compression: Compression
    size: int
    title: str = ""

    @property
    def name(self) -> str:
        """The title if there is one, else the last component of the location."""
        return self.title or PurePosixPath(self.location).name

    @property
    def shown(self) -> str:
        """The name of the file in messages."""
        return self.title or self.location

    @property
    def is_remote(self) -> bool:
        return is_url(self.location)

    @property
    def is_tokens(self) -> bool:
        """Whether the file holds token ids instead of text."""
        return self.format in TOKEN_FORMATS

    @property
    def path(self) -> Path:
        """The path of a local file."""
        return Path(self.location)

    def conversion(self, encoding: Encoding) -> str:
        """A shell command that converts the text to UTF-8; it includes the path only if the file is local."""
        if self.title or self.is_remote:
            return f"iconv -f {encoding.iconv} -t UTF-8"
        return encoding.conversion(self.location, _UNPACKERS[self.compression])


@dataclass(frozen=True)
class Part:
    """A range of a file, in bytes for text and JSON lines, in row groups for Parquet. `stop` is None for the end
    of the file.

    A part contains only complete documents.
    """

    start: int
    stop: int | None


WHOLE = Part(0, None)


def suffix_of(name: str) -> str:
    """The suffix that determines the format, in lower case and without `.gz` or `.zst`."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def known_suffixes(format_name: FormatName) -> dict[str, FileFormat]:
    """The suffixes of a format, or of all formats for `auto`, each with its format."""
    formats = tuple(_SUFFIXES) if format_name == "auto" else (format_name,)
    return {suffix: file_format for file_format in formats for suffix in _SUFFIXES[file_format]}


def compression_of(head: bytes) -> Compression:
    """The compression of a file that starts with `head`, by the magic numbers of gzip and of Zstandard frames."""
    if head.startswith(b"\x1f\x8b"):
        return "gz"
    skippable = head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F
    return "zst" if skippable or head.startswith(b"\x28\xb5\x2f\xfd") else "none"


def index_of(file: CorpusFile) -> Path | None:
    """The index file with the document ends of a file of token ids; None for formats without an index."""
    return {"megatron": file.path.with_suffix(".idx"), "datatrove": Path(f"{file.location}.index")}.get(file.format)


def partner_of(name: str) -> str | None:
    """The file of token ids that an index or another companion file belongs to; None for all other files."""
    if name.endswith(".idx"):
        return name.removesuffix(".idx") + ".bin"
    return next(
        (name.removesuffix(end) for end in (".index", ".loss", ".metadata") if name.endswith(f".ds{end}")), None
    )
