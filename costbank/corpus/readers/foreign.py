"""Refuse files that are not corpus files or not UTF-8 text, whatever their names, before any are read."""

import shlex

from costbank.corpus.readers.formats import CorpusFile, suffix_of
from costbank.encodings import certain_encoding
from costbank.errors import CorpusError, InputError
from costbank.signatures import Signature, signature_of

__all__ = ["refuse_foreign", "refuse_foreign_archive", "refuse_foreign_ids"]

_UNPACK = {"bz2": "bunzip2", "xz": "xz -d", "lz4": "lz4 -d", "zip": "unzip", "7z": "7z x"}
_ZIPPED = ("torch", "sparse", "npz", "office", "epub")
_POINTERS_AND_ERRORS = ("lfs", "annex", "html", "xml-error")
_LONG_SIGNATURES = (
    *_POINTERS_AND_ERRORS,
    "npy",
    "parquet",
    "arrow",
    "gguf",
    "fasttext",
    "safetensors",
    "sqlite",
    "hdf5",
)
"""Signatures that are too long to be token ids by chance; ids can start with any two bytes."""

_HTML_SUFFIXES = (".html", ".htm", ".xhtml")
_SAVE_IDS = "write it as .npy with numpy.save"
_HINTS = {
    "lfs": "fetch the file itself: git lfs pull",
    "annex": "fetch the file itself: git annex get {path}",
    "pdf": "convert it to text: pdftotext {path}",
    "rtf": "save it as plain text in UTF-8",
    "doc": "save it as plain text in UTF-8",
    "office": "save it as plain text in UTF-8",
    "epub": "convert it to text: pandoc -t plain {path}",
    "html": "if a server sent this page instead of the file, download the file again",
    "xml-error": "download the file again; this is an error message from the server",
    "tar": "unpack it: tar -xf {path}",
    "rar": "unpack it: unrar x {path}",
    "gz": "it is compressed twice; decompress it once: gzip -dc {path}",
    "zst": "it is compressed twice; decompress it once: zstd -dc {path}",
    "parquet": "use --set corpus.format=parquet, or rename it to .parquet",
    "arrow": "write it as Parquet: datasets.Dataset.from_file({path!r}).to_parquet(…)",
    "npy": "if it holds token ids, use --set corpus.format=npy, or rename it to .npy",
    "npz": f"if it holds an array of token ids, {_SAVE_IDS}",
    "torch": f"if it holds a tensor of token ids, {_SAVE_IDS}",
    "megatron-index": "rename it to FILE.idx, and the file of its ids to FILE.bin",
}
_DEFAULT_HINT = "a corpus file holds text, JSON lines, Parquet or token ids"


def refuse_foreign_archive(shown: str, head: bytes) -> None:
    """Refuse an unsupported archive; `head` holds the first stored bytes of the file.

    Raises:
        InputError: the file is an unsupported archive.
    """
    signature = signature_of(head)
    if signature and signature.kind in _ZIPPED:
        raise InputError(f"{shown} is {signature.name}, which is not a corpus file", _hint(signature, shown))
    if signature and signature.kind in _UNPACK:
        raise InputError(
            f"{shown} is {signature.name}, which is not supported", f"unpack it: {_UNPACK[signature.kind]}"
        )


def refuse_foreign(file: CorpusFile, head: bytes) -> None:
    """Refuse a file whose content is not the text, JSON lines or Parquet that its format says.

    Args:
        file: the file.
        head: its first decompressed bytes.

    Raises:
        CorpusError: the file has another format, or its first bytes prove that its encoding is not UTF-8.
    """
    signature = signature_of(head)
    is_html = signature is not None and signature.kind == "html" and suffix_of(file.name) in _HTML_SUFFIXES
    if file.format == "parquet":
        if signature and signature.kind in _POINTERS_AND_ERRORS:
            raise CorpusError(f"{file.shown} is {signature.name}", _hint(signature, file.location))
        return
    override = (
        f"to read it anyway, use --set corpus.format={file.format}, and --on-error skip if some lines are not text"
    )
    if signature and not is_html:
        kind = "text" if file.format == "text" else "JSON lines"
        raise CorpusError(
            f"{file.shown} is {signature.name}, not {kind}", f"{_hint(signature, file.location)}; {override}"
        )
    if encoding := certain_encoding(head):
        raise CorpusError(
            f"{file.shown} is {encoding.name} text, but a corpus must be UTF-8",
            f"convert it: {file.conversion(encoding)}",
        )


def refuse_foreign_ids(shown: str, head: bytes) -> None:
    """Refuse a `.bin` file that starts with the signature of another format.

    Raises:
        CorpusError: the file starts with such a signature.
    """
    signature = signature_of(head)
    if signature and signature.kind in _LONG_SIGNATURES:
        raise CorpusError(
            f"{shown} is {signature.name}, not raw token ids",
            f"{_hint(signature, shown)}; to read it anyway, use --set corpus.format=raw-u16",
        )


def _hint(signature: Signature, path: str) -> str:
    return _HINTS.get(signature.kind, _DEFAULT_HINT).format(path=shlex.quote(path))
