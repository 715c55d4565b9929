"""Export a bank: check everything first, write to a staging directory next to the target, sync, and rename."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

from costbank.bank import Bank, check_digests
from costbank.errors import InputError, StorageError, UsageError, require
from costbank.export.base import CellType, ExportFormat, ExportJob
from costbank.export.formats import FORMATS
from costbank.export.tokenizer_json import TokenizerJson, tokenizer_json
from costbank.files import fsync_directory, staging_directory, storage_errors
from costbank.progress import Progress, QuietProgress
from costbank.suggestions import closest

__all__ = ["ExportedFiles", "export_bank"]

_STAGING_PREFIX = ".costbank-export-"
_NOTED_BYTES = 1 << 30

_ALIASES = {
    "word2vec": "word2vec-text", "w2v": "word2vec-text", "text": "word2vec-text", "bin": "word2vec-binary",
    "gensim": "word2vec-binary", "numpy": "npy", "projector": "tensorboard", "atlas": "parquet", "costs": "costs-npy",
    "static": "model2vec",
}  # fmt: skip
"""Other names of formats."""


@dataclass(frozen=True)
class ExportedFiles:
    """The result of an export.

    Attributes:
        format: the name of the format.
        path: the exported file or folder.
        files: every file that was written.
        size: the number of bytes of all files.
        rows: the number of token ids in the export.
        left_out: the number of token ids without a vector that were left out.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    size: int
    rows: int
    left_out: int


def export_bank(
    bank: Bank,
    format_name: str,
    out: Path,
    tokenizer: Path | None = None,
    dtype: CellType = "F32",
    progress: Progress | None = None,
) -> ExportedFiles:
    """Write a bank as a file or folder that another tool opens.

    Args:
        bank: the bank.
        format_name: one of `FORMATS`.
        out: the file or folder to make, which must not exist.
        tokenizer: the tokenizer that the bank was made with, for formats that contain one.
        dtype: the element type of a cost matrix.
        progress: reports the writing.

    Raises:
        UsageError: the format does not exist or does not take an option, or `out` exists.
        InputNotFoundError, TokenizerError: the tokenizer does not exist, is not the bank's, or cannot be converted to a
            tokenizer.json with the same ids.
        InputError: no token has a vector, and the format contains only tokens with one.
        CorruptBankError: a file of the bank does not match the manifest.
        StorageError: there is too little space, or `out` cannot be written. No partial file remains.
        MissingExtraError: a library that the format needs is not installed.
    """
    progress = progress or QuietProgress()
    chosen = _format(format_name)
    _check_options(chosen, tokenizer, dtype)
    _check_place(bank, out)
    places = [out]
    if chosen.companion:
        places.append(out.with_name(out.name + chosen.companion))
        _check_place(bank, places[-1])
    if chosen.library:
        require(chosen.library, "export")
    converted = _tokenizer(tokenizer, bank, progress)
    needed = chosen.size(bank, dtype) + len(converted.content)
    _check_space(needed, out, progress if chosen.of_pairs or needed > _NOTED_BYTES else QuietProgress())
    _check_bytes(bank, chosen, progress)
    kept = bank.size if chosen.whole else int(bank.usable.sum())
    if not kept:
        raise InputError("no token of this bank has a vector", "build the bank from more text, or export it as npy")
    if kept < bank.size:
        progress.note(f"{bank.size - kept:,} of {bank.size:,} tokens have no vector and are left out")
    with (
        storage_errors(out.absolute().parent),
        staging_directory(out.absolute().parent, _STAGING_PREFIX) as staging,
    ):
        staged = [staging / place.name for place in places]
        if chosen.folder:
            staged[0].mkdir()
        chosen.write(ExportJob(bank, staged[0], staged[-1], converted.content, converted.tokens, dtype, progress))
        staged_files = _synced(staged)
        _publish(staged, places)
    files = tuple(out.parent / path.relative_to(staging) for path in staged_files)
    return ExportedFiles(chosen.name, out, files, sum(map(_size, files)), kept, bank.size - kept)


def _tokenizer(path: Path | None, bank: Bank, progress: Progress) -> TokenizerJson:
    """The bank's tokenizer as a tokenizer.json; empty if no path is given."""
    if path is None:
        return TokenizerJson(b"", 0)
    with progress.step("prove the tokenizer"):
        converted = tokenizer_json(path, bank)
    if converted.caution:
        progress.note(converted.caution)
    return converted


def _format(name: str) -> ExportFormat:
    if name not in FORMATS:
        near = closest(name, FORMATS, _ALIASES)
        listed = f"the formats are {', '.join(FORMATS)}"
        raise UsageError(f"there is no format {name!r}", f"did you mean {near}? {listed}" if near else listed)
    return FORMATS[name]


def _check_options(chosen: ExportFormat, tokenizer: Path | None, dtype: CellType) -> None:
    if chosen.with_tokenizer and tokenizer is None:
        raise UsageError(
            f"{chosen.name} holds a tokenizer, and a bank has only its vocabulary",
            "give --tokenizer FILE, the one that the bank was made with",
        )
    if tokenizer is not None and not chosen.with_tokenizer:
        raise UsageError(f"{chosen.name} holds no tokenizer", "leave --tokenizer out")
    if dtype != "F32" and not chosen.of_pairs:
        raise UsageError(f"{chosen.name} is always in F32", "leave --dtype out; it is for costs-npy")


def _check_free(place: Path) -> None:
    if os.path.lexists(place):
        raise UsageError(f"{place} is there already", "name another --out, or remove it first")


def _check_place(bank: Bank, place: Path) -> None:
    _check_free(place)
    if bank.path.resolve() in place.absolute().resolve().parents:
        raise UsageError(f"{place} is inside the bank, which nothing may change", "name another --out")


def _check_space(needed: int, out: Path, progress: Progress) -> None:
    place = out.absolute().parent
    while not place.exists():
        place = place.parent
    free = disk_usage(place).free
    progress.note(f"{out} takes about {_amount(needed)}, and {_amount(free)} are free")
    if needed > free:
        raise StorageError(
            f"{out} takes about {_amount(needed)}, and {place} has {_amount(free)} free",
            "free some space, or choose another --out",
        )


def _check_bytes(bank: Bank, chosen: ExportFormat, progress: Progress) -> None:
    with progress.step("check the bank", sum(bank.manifest.files[name].size for name in chosen.reads), "bytes") as told:
        check_digests(bank, chosen.reads, told.advance)


def _synced(staged: Sequence[Path]) -> list[Path]:
    """Sync the staged files to disk, and list them with those in staged folders."""
    files = []
    for top in staged:
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_dir():
                fsync_directory(path)
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            files.append(path)
        if top.is_dir():
            fsync_directory(top)
    return files


def _publish(staged: Sequence[Path], places: Sequence[Path]) -> None:
    """Rename the staged files. The main target comes last, so that it never exists without the file next to it."""
    pairs = list(zip(staged, places, strict=True))
    try:
        for source, place in [*pairs[1:], pairs[0]]:
            _check_free(place)  # another process may have made it in the meantime
            source.rename(place)
    except BaseException:
        if os.path.lexists(staged[0]):
            for source, place in pairs[1:]:
                if not os.path.lexists(source):
                    place.unlink(missing_ok=True)
        raise
    fsync_directory(places[0].absolute().parent)


def _amount(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _size(path: Path) -> int:
    return path.stat().st_size
