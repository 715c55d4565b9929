"""What a corpus file is: its format, its compression, and a part of it.

The suffix gives the format and the first bytes give the compression, so a compressed file is read whatever its suffix.
Token ids are the exception: they may begin with any bytes, and are mapped as they are stored.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from costbank.corpus.readers.filesystems import is_url
from costbank.encodings import Encoding

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
        location: a path, or a URL for a file on another machine.
        format, compression: of its content.
        size: bytes as stored; 0 where a server does not say.
        title: what messages call a file that has no name of its own, such as standard input.
    """

    location: str
    format: FileFormat
    compression: Compression
    size: int
    title: str = ""

    @property
    def name(self) -> str:
        """The title where there is one, else the last part of the location."""
        return self.title or PurePosixPath(self.location).name

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.title or self.location

    @property
    def is_remote(self) -> bool:
        return is_url(self.location)

    @property
    def is_tokens(self) -> bool:
        """Whether it holds token ids rather than text."""
        return self.format in TOKEN_FORMATS

    @property
    def path(self) -> Path:
        """The location of a file on this machine."""
        return Path(self.location)

    def conversion(self, encoding: Encoding) -> str:
        """The command that writes the file's text in UTF-8; it names the file only if it is on this machine."""
        is_here = not self.title and not self.is_remote
        if not is_here:
            return f"iconv -f {encoding.iconv} -t UTF-8"
        return encoding.conversion(self.location, _UNPACKERS[self.compression])


@dataclass(frozen=True)
class Part:
    """A range of a file: bytes of text and JSON lines, row groups of Parquet. `stop` is None for the end.

    A part of text begins where a document may begin, so it holds whole documents.
    """

    start: int
    stop: int | None


WHOLE = Part(0, None)


def suffix_of(name: str) -> str:
    """The suffix that gives the format, in lower case; `.gz` and `.zst` are skipped."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def known_suffixes(wanted: FormatName) -> dict[str, FileFormat]:
    """The suffixes that files of a format may have, each with the format that it means by itself."""
    formats = tuple(_SUFFIXES) if wanted == "auto" else (wanted,)
    return {suffix: known for known in formats for suffix in _SUFFIXES[known]}


def compression_of(head: bytes) -> Compression:
    """How a file that begins with `head` is compressed: by the marks of gzip, Zstandard and its skippable frames."""
    if head.startswith(b"\x1f\x8b"):
        return "gz"
    skippable = head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F
    return "zst" if skippable or head.startswith(b"\x28\xb5\x2f\xfd") else "none"


def index_of(file: CorpusFile) -> Path | None:
    """The index that says where the documents of a file of token ids end; None for formats without one."""
    return {"megatron": file.path.with_suffix(".idx"), "datatrove": Path(f"{file.location}.index")}.get(file.format)


def partner_of(name: str) -> str | None:
    """The file of token ids that an index, or another file of its writer, belongs to; None for all other files."""
    if name.endswith(".idx"):
        return name.removesuffix(".idx") + ".bin"
    return next(
        (name.removesuffix(end) for end in (".index", ".loss", ".metadata") if name.endswith(f".ds{end}")), None
    )
