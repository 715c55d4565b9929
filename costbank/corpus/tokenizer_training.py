"""Train a tokenizer on a corpus. Files are read by the same rules as in a build.

The trainer reports no progress for minutes and ignores Ctrl-C, so it runs in a child process. This process shows
that the training is running, and kills the child when it is interrupted. The model is written to a temporary file and
renamed.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from costbank.corpus.readers import (
    STANDARD_INPUT,
    BadRecords,
    CorpusFile,
    FormatName,
    OnError,
    ReadOptions,
    fetched,
    find_files,
    read_documents,
)
from costbank.engines import Report, run_in_child
from costbank.errors import CorpusError, UsageError, require
from costbank.files import fsync_directory, staging_directory, storage_errors
from costbank.plurals import counted
from costbank.progress import Progress
from costbank.tokenizers.train import TrainingOptions, train_on_texts

__all__ = ["TrainingText", "train_tokenizer"]

_STAGING_PREFIX = ".costbank-tokenizer-"
_MAX_SHOWN = 5


@dataclass(frozen=True)
class TrainingText:
    """The text to train on; `costbank build` takes the same settings for a corpus.

    Attributes:
        files: files, folders, patterns, URLs, or `-` for standard input.
        format: the format of the files; `auto` detects it from their names and contents.
        read: what counts as a document; each line of a document is a sentence.
        on_error: what to do with unreadable records and files.
    """

    files: tuple[str, ...]
    format: FormatName = "auto"
    read: ReadOptions = field(default_factory=ReadOptions)
    on_error: OnError = "refuse"


@dataclass(frozen=True)
class _Job:
    """The arguments of the child process.

    Attributes:
        copies: a directory for copies of remote files.
        model: the file that the child writes the model to.
        all_read: a file that the child creates when it has read all text.
    """

    files: tuple[CorpusFile, ...]
    text: TrainingText
    options: TrainingOptions
    copies: Path
    model: Path
    all_read: Path


@dataclass(frozen=True)
class _Skipped:
    """The number of skipped records, and messages about the first ones."""

    count: int
    shown: tuple[str, ...]


def train_tokenizer(
    text: TrainingText, out: Path, options: TrainingOptions, progress: Progress, overwrite: bool = False
) -> Path:
    """Train a SentencePiece model on a corpus and write it to `out`. If it fails or is interrupted, `out` is unchanged.

    Returns:
        `out`.

    Raises:
        UsageError: `out` is a directory, or it exists and `overwrite` is false; the files hold token ids; no text can
            satisfy the options.
        InputNotFoundError, InputError, CorpusError: a file is missing, cannot be read, or is not text.
        MissingExtraError: SentencePiece is not installed.
        TokenizerError: the text is not enough for a vocabulary of this size.
        StorageError: `out` cannot be written.
        EngineError: the child process was killed.
    """
    options.check()
    require("sentencepiece", "build")
    _check_out(out, overwrite)
    with storage_errors(out.parent), staging_directory(out.parent, _STAGING_PREFIX) as staging:
        files = _find(text, staging, progress)
        job = _Job(files, text, options, staging / "copies", staging / "model", staging / "all-read")
        skipped = _run(job, progress)
        if skipped.count:
            more = f"\n  and {skipped.count - len(skipped.shown):,} more" if skipped.count > len(skipped.shown) else ""
            shown = "\n  ".join(skipped.shown)
            progress.note(f"skipped {counted(skipped.count, 'bad record')}:\n  {shown}{more}")
        _publish(job.model, out, overwrite)
    return out


def _check_out(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise UsageError(f"{out} is a directory", "name a file to write, such as --out my.model")
    if not overwrite and os.path.lexists(out):
        raise UsageError(f"{out} already exists", "choose another --out, or replace the file with --overwrite")


def _find(text: TrainingText, spool: Path, progress: Progress) -> tuple[CorpusFile, ...]:
    files = find_files(text.files, format_name=text.format, spool=spool, note=progress.note, on_error=text.on_error)
    if tokens := next((file for file in files if file.is_tokens), None):
        raise UsageError(
            f"{tokens.shown} holds token ids, but training a tokenizer needs text",
            f"name text files, or {STANDARD_INPUT} for standard input",
        )
    return tuple(files)


def _run(job: _Job, progress: Progress) -> _Skipped:
    sizes = [file.size for file in job.files]
    with ExitStack() as steps:
        reading = steps.enter_context(progress.step("read text", sum(sizes) if all(sizes) else None, "bytes"))
        training: Any = None

        def poll() -> None:
            nonlocal training
            if training is None and job.all_read.exists():
                steps.close()
                training = steps.enter_context(progress.step(f"train a {job.options.model_type} tokenizer"))
            (training or reading).advance(0)

        def report(count: int) -> None:
            if training is None:
                reading.advance(count)

        skipped = run_in_child(_train, job, report, poll)
        poll()
        return skipped


def _train(job: _Job, report: Report) -> _Skipped:
    """In the child process: read the text, train, and write the model to the staging directory."""
    bad = BadRecords(job.text.on_error)
    try:
        model = train_on_texts(_texts(job, bad, report), job.options)
    except CorpusError as error:
        if not bad.count:
            raise
        raise CorpusError(
            f"{error.message}; skipped: {counted(bad.count, 'unreadable record')}, such as {bad.shown[0]}",
            error.hint,
        ) from None
    with storage_errors(job.model.parent), job.model.open("wb") as file:
        file.write(model)
        file.flush()
        os.fsync(file.fileno())
    return _Skipped(bad.count, tuple(map(str, bad.shown[:_MAX_SHOWN])))


def _texts(job: _Job, bad: BadRecords, report: Callable[[int], None]) -> Iterator[str]:
    for file in job.files:
        with ExitStack() as copies:
            local = copies.enter_context(fetched(file, job.copies))[0] if file.is_remote else file
            for documents, stored_bytes in read_documents(local, job.text.read, bad):
                yield from documents
                report(stored_bytes)
    job.all_read.touch()


def _publish(model: Path, out: Path, overwrite: bool) -> None:
    """Move the model to `out`. A file that another process created there is replaced only with `overwrite`."""
    model.chmod(0o644)
    if overwrite:
        model.replace(out)
    else:
        try:
            os.link(model, out)
        except FileExistsError:
            raise UsageError(
                f"another process created {out} during the training",
                "choose another --out, or replace the file with --overwrite",
            ) from None
        except OSError:  # a file system without hard links
            _check_out(out, overwrite)
            model.replace(out)
    fsync_directory(out.parent)
