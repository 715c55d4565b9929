"""What kinds of files a corpus is made of, and how one is told from another.

A suffix tells the format and the first bytes tell the compression, so a file that is compressed under another name is
read all the same. Token ids are the exception: any bytes may begin them, and they are read as they lie on disk.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from costbank.corpus.readers.remote import is_url

__all__ = [
    "TOKEN_FORMATS",
    "Compression",
    "CorpusFile",
    "FileFormat",
    "FormatName",
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


@dataclass(frozen=True)
class CorpusFile:
    """One file of a corpus: where it is, what it holds, and its size in bytes as it is stored.

    `location` is a path, or a URL where the file is not on this machine. `size` is 0 where a server does not say.
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
        """Whether it holds token ids, and no text."""
        return self.format in TOKEN_FORMATS

    @property
    def path(self) -> Path:
        """The location of a file on this machine."""
        return Path(self.location)


def suffix_of(name: str) -> str:
    """The suffix that tells the format, in small letters: that before `.gz` or `.zst` where there is one."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def known_suffixes(wanted: FormatName) -> dict[str, FileFormat]:
    """The suffixes that files of a format have in folders, each with the format that it stands for by itself."""
    formats = tuple(_SUFFIXES) if wanted == "auto" else (wanted,)
    return {suffix: known for known in formats for suffix in _SUFFIXES[known]}


def compression_of(head: bytes) -> Compression:
    """How a file is compressed that begins with `head`, by the marks of gzip, Zstandard and its skippable frames."""
    if head.startswith(b"\x1f\x8b"):
        return "gz"
    skippable = head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F
    return "zst" if skippable or head.startswith(b"\x28\xb5\x2f\xfd") else "none"


def index_of(file: CorpusFile) -> Path | None:
    """The file beside it that says where documents of token ids end, where the format has one."""
    return {"megatron": file.path.with_suffix(".idx"), "datatrove": Path(f"{file.location}.index")}.get(file.format)


def partner_of(name: str) -> str | None:
    """The name of the file of token ids that an index or a note beside it belongs to; None if it is not one."""
    if name.endswith(".idx"):
        return name.removesuffix(".idx") + ".bin"
    return next(
        (name.removesuffix(end) for end in (".index", ".loss", ".metadata") if name.endswith(f".ds{end}")), None
    )
