"""Files that are not a corpus, whatever their names say, or text in another encoding: refused by name at once."""

import shlex

from costbank.corpus.readers.formats import CorpusFile, suffix_of
from costbank.encodings import certain_encoding
from costbank.errors import CorpusError, InputError
from costbank.signatures import Signature, signature_of

__all__ = ["refuse_foreign", "refuse_foreign_archive", "refuse_foreign_ids"]

_UNPACK = {"bz2": "bunzip2", "xz": "xz -d", "lz4": "lz4 -d", "zip": "unzip", "7z": "7z x"}
_ZIPPED = ("torch", "sparse", "npz", "office", "epub")
_POINTERS_AND_ERRORS = ("lfs", "annex", "html", "xml-error")
_LONG_MARKS = (*_POINTERS_AND_ERRORS, "npy", "parquet", "arrow", "gguf", "fasttext", "safetensors", "sqlite", "hdf5")
"""Marks so long that they are not token ids; ids may begin with any two bytes."""

_HTML_SUFFIXES = (".html", ".htm", ".xhtml")
_SAVE_IDS = "numpy.save writes token ids in a form that is read (.npy)"
_HINTS = {
    "lfs": "fetch the file itself: git lfs pull",
    "annex": "fetch the file itself: git annex get {path}",
    "pdf": "write its text to a file: pdftotext {path}",
    "rtf": "save it as plain text in UTF-8",
    "doc": "save it as plain text in UTF-8",
    "office": "save it as plain text in UTF-8",
    "epub": "write its text to a file: pandoc -t plain {path}",
    "html": "if it is what a server answered instead of the file, download the file again",
    "xml-error": "download the file again; the server's answer is in this one",
    "tar": "unpack it first: tar -xf {path}",
    "rar": "unpack it first: unrar x {path}",
    "gz": "it is compressed twice; decompress it once: gzip -dc {path}",
    "zst": "it is compressed twice; decompress it once: zstd -dc {path}",
    "parquet": "--set corpus.format=parquet reads it, and so does the suffix .parquet",
    "arrow": "write it as Parquet: datasets.Dataset.from_file({path!r}).to_parquet(…)",
    "npy": "--set corpus.format=npy reads token ids in it, and so does the suffix .npy",
    "npz": f"save the array of token ids by itself: {_SAVE_IDS}",
    "torch": f"save the tensor of token ids as an array: {_SAVE_IDS}",
    "megatron-index": "name it FILE.idx, and its ids FILE.bin",
}
_OTHERWISE = "text, JSON lines, Parquet and token ids are read"


def refuse_foreign_archive(shown: str, head: bytes) -> None:
    """Refuse an archive of an unsupported kind; `head` is the beginning of the file as stored.

    Raises:
        InputError: it is such an archive.
    """
    signature = signature_of(head)
    if signature and signature.kind in _ZIPPED:
        raise InputError(f"{shown} is {signature.name}, which is not read as a corpus", _hint(signature, shown))
    if signature and signature.kind in _UNPACK:
        raise InputError(
            f"{shown} is {signature.name}, which is not read", f"unpack it first: {_UNPACK[signature.kind]}"
        )


def refuse_foreign(file: CorpusFile, head: bytes) -> None:
    """Refuse a file of text, JSON lines or Parquet with other content; `head` is the decompressed beginning.

    Raises:
        CorpusError: it is another kind of file, or text in an encoding other than UTF-8 that its bytes prove.
    """
    signature = signature_of(head)
    is_html = signature is not None and signature.kind == "html" and suffix_of(file.name) in _HTML_SUFFIXES
    if file.format == "parquet":
        if signature and signature.kind in _POINTERS_AND_ERRORS:
            raise CorpusError(f"{file.shown} is {signature.name}", _hint(signature, file.location))
        return
    insist = f"--set corpus.format={file.format} reads it all the same, with --on-error skip where lines are not text"
    if signature and not is_html:
        kind = "text" if file.format == "text" else "JSON lines"
        raise CorpusError(
            f"{file.shown} is {signature.name}, and not {kind}", f"{_hint(signature, file.location)}; {insist}"
        )
    if encoding := certain_encoding(head):
        raise CorpusError(
            f"{file.shown} is {encoding.name} text, and only UTF-8 is read", f"convert it: {file.conversion(encoding)}"
        )


def refuse_foreign_ids(shown: str, head: bytes) -> None:
    """Refuse a `.bin` that begins with the mark of another format.

    Raises:
        CorpusError: it does.
    """
    signature = signature_of(head)
    if signature and signature.kind in _LONG_MARKS:
        raise CorpusError(
            f"{shown} is {signature.name}, and not raw token ids",
            f"{_hint(signature, shown)}; --set corpus.format=raw-u16 reads it all the same",
        )


def _hint(signature: Signature, path: str) -> str:
    return _HINTS.get(signature.kind, _OTHERWISE).format(path=shlex.quote(path))
