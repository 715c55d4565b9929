"""Export a bank: check everything, write to a staging directory next to the target, sync, and rename."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

from costbank.bank import Bank, check_digests
from costbank.errors import InputError, StorageError, UsageError, require
from costbank.export.base import CellType, ExportFormat, ExportJob
from costbank.export.formats import FORMATS
from costbank.export.tokenizer_json import TokenizerJson, convert_tokenizer
from costbank.files import fsync_directory, staging_directory, storage_errors
from costbank.hub import cache_note
from costbank.progress import Progress, QuietProgress
from costbank.suggestions import closest

__all__ = ["ExportedFiles", "check_space", "export_bank"]

_STAGING_PREFIX = ".costbank-export-"
_UNREPORTED_BYTES = 1 << 30

_ALIASES = {
    "word2vec": "word2vec-text", "w2v": "word2vec-text", "text": "word2vec-text", "bin": "word2vec-binary",
    "gensim": "word2vec-binary", "numpy": "npy", "projector": "tensorboard", "atlas": "parquet", "costs": "costs-npy",
    "static": "model2vec",
}  # fmt: skip
"""Other names of formats, for suggestions."""


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
    out: str | Path,
    tokenizer: str | Path | None = None,
    dtype: CellType = "F32",
    progress: Progress | None = None,
) -> ExportedFiles:
    """Write a bank as a file or folder that another tool opens.

    Args:
        bank: the bank.
        format_name: one of `FORMATS`.
        out: the file or folder to create, which must not exist.
        tokenizer: the tokenizer that the bank was built with, for formats that contain one.
        dtype: the element type of a cost matrix.
        progress: reports the writing.

    Raises:
        UsageError: the format does not exist or does not support an option, or `out` exists.
        InputNotFoundError, TokenizerError: the tokenizer does not exist, is not the bank's, or cannot be converted to a
            tokenizer.json with the same ids.
        InputError: no token has a vector, and the format contains only tokens with one.
        CorruptBankError: a file of the bank does not match the manifest.
        StorageError: there is too little space, or `out` cannot be written. No partial file remains.
        MissingExtraError: a library that the format needs is not installed.
    """
    progress, out, tokenizer = progress or QuietProgress(), Path(out), Path(tokenizer) if tokenizer else None
    chosen = _format(format_name)
    _check_options(chosen, tokenizer, dtype)
    _check_target(bank, out)
    targets = [out]
    if chosen.companion_suffix:
        targets.append(out.with_name(out.name + chosen.companion_suffix))
        _check_target(bank, targets[-1])
    if chosen.library:
        require(chosen.library, "export")
    converted = TokenizerJson() if tokenizer is None else _convert_tokenizer(tokenizer, bank, progress)
    needed_bytes = chosen.estimate_bytes(bank, dtype) + len(converted.content)
    check_space(needed_bytes, out, progress, unreported_bytes=0 if chosen.is_cost_matrix else _UNREPORTED_BYTES)
    _check_bank_files(bank, chosen, progress)
    rows = bank.size if chosen.has_all_tokens else int(bank.usable.sum())
    if not rows:
        raise InputError("no token of this bank has a vector", "build the bank from more text, or export it as npy")
    if rows < bank.size:
        progress.note(f"{bank.size - rows:,} of {bank.size:,} tokens have no vector and are left out")
    with (
        storage_errors(out.absolute().parent),
        staging_directory(out.absolute().parent, _STAGING_PREFIX) as staging,
    ):
        staged = [staging / target.name for target in targets]
        if chosen.is_folder:
            staged[0].mkdir()
        chosen.write(ExportJob(bank, staged[0], staged[-1], converted, dtype, progress))
        staged_files = _sync_files(staged)
        _rename(staged, targets)
    files = tuple(out.parent / path.relative_to(staging) for path in staged_files)
    return ExportedFiles(chosen.name, out, files, sum(path.stat().st_size for path in files), rows, bank.size - rows)


def check_space(needed_bytes: int, out: Path, progress: Progress, unreported_bytes: int = _UNREPORTED_BYTES) -> None:
    """Compare the size of an export with the free space of its disk.

    Args:
        needed_bytes: the estimated size.
        out: the file or folder to create.
        progress: reports both numbers if the size is above `unreported_bytes`.
        unreported_bytes: see above.

    Raises:
        StorageError: there is too little space.
    """
    existing = out.absolute().parent
    while not existing.exists():
        existing = existing.parent
    free_bytes = disk_usage(existing).free
    if needed_bytes > unreported_bytes:
        progress.note(f"{out} takes about {_amount(needed_bytes)}, and {_amount(free_bytes)} is free")
    if needed_bytes > free_bytes:
        raise StorageError(
            f"{out} takes about {_amount(needed_bytes)}, but {existing} has only {_amount(free_bytes)} free",
            "free some space, or choose another --out",
        )


def _convert_tokenizer(path: Path, bank: Bank, progress: Progress) -> TokenizerJson:
    if note := cache_note(path):
        progress.note(note)
    with progress.step("check the tokenizer"):
        converted = convert_tokenizer(path, bank)
    if converted.warning:
        progress.note(converted.warning)
    return converted


def _format(name: str) -> ExportFormat:
    if name not in FORMATS:
        suggestion = closest(name, FORMATS, _ALIASES)
        formats = f"the formats are {', '.join(FORMATS)}"
        raise UsageError(
            f"there is no format {name!r}", f"did you mean {suggestion}? {formats}" if suggestion else formats
        )
    return FORMATS[name]


def _check_options(chosen: ExportFormat, tokenizer: Path | None, dtype: CellType) -> None:
    if chosen.has_tokenizer and tokenizer is None:
        raise UsageError(
            f"{chosen.name} needs a tokenizer, but a bank contains only a vocabulary",
            "give --tokenizer FILE, the tokenizer that the bank was built with",
        )
    if tokenizer is not None and not chosen.has_tokenizer:
        raise UsageError(f"{chosen.name} contains no tokenizer", "omit --tokenizer")
    if dtype != "F32" and not chosen.is_cost_matrix:
        raise UsageError(f"{chosen.name} is always written as F32", "omit --dtype; only costs-npy supports it")


def _check_target(bank: Bank, path: Path) -> None:
    _check_absent(path)
    if bank.path.resolve() in path.absolute().resolve().parents:
        raise UsageError(f"{path} is inside the bank, and a bank must not change", "choose another --out")


def _check_absent(path: Path) -> None:
    if os.path.lexists(path):
        raise UsageError(f"{path} already exists", "choose another --out, or remove it first")


def _check_bank_files(bank: Bank, chosen: ExportFormat, progress: Progress) -> None:
    total = sum(bank.manifest.files[name].size for name in chosen.bank_files)
    with progress.step("check the bank", total, "bytes") as step:
        check_digests(bank, chosen.bank_files, step.advance)


def _sync_files(staged: Sequence[Path]) -> list[Path]:
    """Sync the staged files and folders to disk, and return all files, including those in folders."""
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


def _rename(staged: Sequence[Path], targets: Sequence[Path]) -> None:
    """Rename the staged files, the main one last, so it never exists without the file next to it."""
    pairs = list(zip(staged, targets, strict=True))
    try:
        for source, target in [*pairs[1:], pairs[0]]:
            _check_absent(target)  # another process may have created it during the export
            source.rename(target)
    except BaseException:
        if os.path.lexists(staged[0]):
            for source, target in pairs[1:]:
                if not os.path.lexists(source):
                    target.unlink(missing_ok=True)
        raise
    fsync_directory(targets[0].absolute().parent)


def _amount(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.1f} MB"
