"""Training a tokenizer on a corpus: the files that a build takes, read as a build reads them.

The trainer is silent for minutes and hears no Ctrl-C, so it runs in a process of its own. This one reports that it is
still at work, and ends it when it is interrupted. The model is written to a temporary file and renamed.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from costbank.corpus.readers import (
    STANDARD_INPUT,
    WHOLE,
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
_MOST_SHOWN = 5


@dataclass(frozen=True)
class TrainingText:
    """Which text to train on: what `costbank build --corpus` takes.

    Attributes:
        files: files, folders, patterns, URLs, or `-` for standard input.
        format: of the files, where their names and contents do not tell.
        read: what a document is; each of its lines is a sentence.
        on_error: what to do with records, and files, that cannot be read.
    """

    files: tuple[str, ...]
    format: FormatName = "auto"
    read: ReadOptions = field(default_factory=ReadOptions)
    on_error: OnError = "refuse"


@dataclass(frozen=True)
class _Job:
    """What the child does, and where it puts copies of remote files, the model, and the sign that all text is read."""

    files: tuple[CorpusFile, ...]
    text: TrainingText
    options: TrainingOptions
    copies: Path
    model: Path
    all_read: Path


@dataclass(frozen=True)
class _Done:
    skipped: int
    shown: tuple[str, ...]


def train_tokenizer(
    text: TrainingText, out: Path, options: TrainingOptions, progress: Progress, overwrite: bool = False
) -> Path:
    """Train a SentencePiece model on a corpus and write it to `out`; interrupted or failed, it leaves nothing there.

    Raises:
        UsageError: `out` is a directory, or is there already and `overwrite` is false; the files hold token ids; the
            options cannot be met by any text.
        InputNotFoundError, InputError, CorpusError: a file is missing, cannot be read, or is not text.
        TokenizerError: the text cannot give such a vocabulary.
        StorageError: `out` cannot be written.
        EngineError: the training was killed.
    """
    options.check()
    require("sentencepiece", "build")
    _check_out(out, overwrite)
    with storage_errors(out.parent), staging_directory(out.parent, _STAGING_PREFIX) as staging:
        files = _find(text, staging, progress)
        job = _Job(files, text, options, staging / "copies", staging / "model", staging / "all-read")
        done = _run(job, progress)
        if done.skipped:
            more = f"\n  and {done.skipped - len(done.shown):,} more" if done.skipped > len(done.shown) else ""
            shown = "\n  ".join(done.shown)
            progress.note(f"left out {done.skipped:,} bad record{'s' * (done.skipped > 1)}:\n  {shown}{more}")
        _publish(job.model, out, overwrite)
    return out


def _check_out(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise UsageError(f"{out} is a directory", "name the file to write: --out my.model")
    if not overwrite and os.path.lexists(out):
        raise UsageError(f"{out} exists already", "give another --out, or --overwrite to replace it")


def _find(text: TrainingText, spool: Path, progress: Progress) -> tuple[CorpusFile, ...]:
    files = find_files(text.files, wanted=text.format, spool=spool, note=progress.note, on_error=text.on_error)
    if tokens := next((file for file in files if file.is_tokens), None):
        raise UsageError(
            f"{tokens.shown} holds token ids, and a tokenizer is trained on text",
            f"name files of text; {STANDARD_INPUT} reads standard input",
        )
    return tuple(files)


def _run(job: _Job, progress: Progress) -> _Done:
    sizes = [file.size for file in job.files]
    with ExitStack() as steps:
        reading = steps.enter_context(progress.step("read text", sum(sizes) if all(sizes) else None, "bytes"))
        training: Any = None

        def still_at_work() -> None:
            nonlocal training
            if training is None and job.all_read.exists():
                steps.close()
                training = steps.enter_context(progress.step(f"train a {job.options.model_type} tokenizer"))
            (training or reading).advance(0)

        def report(count: int) -> None:
            if training is None:
                reading.advance(count)

        done = run_in_child(_train, job, report, still_at_work)
        still_at_work()
        return done


def _train(job: _Job, report: Report) -> _Done:
    """Read the text, train, and leave the model in the staging directory. A child's work."""
    bad = BadRecords(job.text.on_error)
    try:
        model = train_on_texts(_texts(job, bad, report), job.options)
    except CorpusError as error:
        if not bad.count:
            raise
        raise CorpusError(
            f"{error.message}; unreadable and skipped: {counted(bad.count, 'record')}, such as {bad.shown[0]}",
            error.hint,
        ) from None
    with storage_errors(job.model.parent), job.model.open("wb") as file:
        file.write(model)
        file.flush()
        os.fsync(file.fileno())
    return _Done(bad.count, tuple(map(str, bad.shown[:_MOST_SHOWN])))


def _texts(job: _Job, bad: BadRecords, report: Callable[[int], None]) -> Iterator[str]:
    for file in job.files:
        with ExitStack() as kept:
            local = kept.enter_context(fetched(file, job.copies))[0] if file.is_remote else file
            for documents, used in read_documents(local, job.text.read, bad, WHOLE):
                yield from documents
                report(used)
    job.all_read.touch()


def _publish(model: Path, out: Path, overwrite: bool) -> None:
    """Put the model in its place; a file that has come there meanwhile is replaced only where that is wanted."""
    model.chmod(0o644)
    if overwrite:
        model.replace(out)
    else:
        try:
            os.link(model, out)
        except FileExistsError:
            raise UsageError(
                f"{out} has been made meanwhile", "give another --out, or --overwrite to replace it"
            ) from None
        except OSError:  # a file system without hard links
            _check_out(out, overwrite)
            model.replace(out)
    fsync_directory(out.parent)
