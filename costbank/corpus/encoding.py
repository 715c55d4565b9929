"""A corpus encoded once: each part of it a file of token ids in the cache, made by any engine, and kept.

A part is named by a digest of its content, the tokenizer, the versions of its libraries and how documents are read.
Parts do not depend on who encodes them, so an encoding that was interrupted goes on where it was.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from costbank.corpus.digests import FileContent, file_contents, refuse_changed
from costbank.corpus.encoded import EncodedCorpus
from costbank.corpus.entries import EncodedPart, id_dtype, read_entry, write_entry, write_mapped_entry
from costbank.corpus.readers import (
    BadRecords,
    CorpusFile,
    OnError,
    Part,
    ReadOptions,
    fetched,
    open_token_bin,
    parts_of,
    read_documents,
)
from costbank.engines import Engine, Report
from costbank.errors import CorpusError, UsageError
from costbank.files import InputFile, no_abandoned, storage_errors
from costbank.plurals import counted
from costbank.progress import Progress
from costbank.splitmix import splitmix64
from costbank.tokenizers import SamplingTokenizer, Tokenizer, TokenizerKind, load_tokenizer

__all__ = ["EncodingOptions", "Sampling", "encode_corpus", "refuse_sampling"]

_FORMAT = "costbank encoded text 3"
_DRAWS = "costbank draws 1"


@dataclass(frozen=True)
class Sampling:
    """Segmentations drawn at random, each document's with a seed of its own that follows from `seed`."""

    alpha: float
    seed: int


@dataclass(frozen=True)
class EncodingOptions:
    """How files become ids.

    Attributes:
        tokenizer, kind: the tokenizer's file, and its format.
        separator: the id that ends a document in files of token ids that have no index.
        sampling: not given, each text has the segmentation that the tokenizer finds best.
    """

    tokenizer: Path
    kind: TokenizerKind
    read: ReadOptions
    separator: int | None = None
    sampling: Sampling | None = None
    on_error: OnError = "refuse"


@dataclass(frozen=True)
class _Shard:
    """A part of a file to encode, and where to."""

    source: FileContent
    part: Part
    encoding: EncodingOptions
    vocab_size: int
    stored_bytes: int
    entry: Path
    staging: Path

    def kept(self) -> EncodedPart | None:
        """The entry of this part; None where there is none, or where it lacks records that are now refused."""
        part = read_entry(self.entry)
        return None if part and part.skipped and self.encoding.on_error == "refuse" else part


def refuse_sampling(tokenizer: Tokenizer, sampling: Sampling) -> None:
    """Make sure that a tokenizer can draw segmentations.

    Raises:
        UsageError: it cannot, or not with such an alpha.
    """
    if not isinstance(tokenizer, SamplingTokenizer):
        raise UsageError(
            f"a tokenizer of the kind {tokenizer.kind} has no sampling",
            "leave --sampling out, or give a SentencePiece or BytePiece model",
        )
    tokenizer.sample(["a"], sampling.alpha, np.zeros(1, np.int64))


def encode_corpus(
    files: Sequence[CorpusFile], encoding: EncodingOptions, tokenizer: Tokenizer, engine: Engine, cache: Path,
    progress: Progress,
) -> EncodedCorpus:  # fmt: skip
    """Encode what of the files has not been encoded before, and give all of it.

    Raises:
        CorpusError: a file cannot be read, or changes meanwhile, or nothing in the corpus becomes a token.
        StorageError: the cache cannot be written.
        EngineError: workers died again and again.
    """
    with storage_errors(cache), no_abandoned(cache / "staging"):
        cache.mkdir(parents=True, exist_ok=True)
        sources = file_contents(files, engine, cache, progress)
        shards = [shard for source in sources for shard in _shards(source, encoding, tokenizer, cache)]
        _encode_missing(shards, tokenizer, engine, progress)
        parts = []
        for shard in shards:
            part = shard.kept()
            if part is None:
                raise CorpusError(f"the encoded text in {shard.entry} cannot be read back", "build again")
            parts.append(part)
    mapped = dict.fromkeys(state for shard in shards if shard.source.file.is_tokens for state in shard.source.states)
    corpus = EncodedCorpus(
        tuple(_inputs(shards, parts)), tuple(parts), tokenizer.vocab.size, _skipped(parts, progress), tuple(mapped)
    )
    if corpus.tokens == 0:
        names = ", ".join(file.shown for file in files[:5])
        skipped = f"; unreadable and skipped: {counted(corpus.skipped, 'record')}" if corpus.skipped else ""
        raise CorpusError(f"the corpus holds no text: {names}{skipped}", "give files with words in them")
    return corpus


def _shards(source: FileContent, encoding: EncodingOptions, tokenizer: Tokenizer, cache: Path) -> Iterator[_Shard]:
    file = source.file
    how: list[Any]
    if file.is_tokens:
        how = [str(file.path.absolute()), file.format, encoding.separator, tokenizer.vocab.size]
    else:
        versions = [f"{name} {version(name)}" for name in tokenizer.libraries]
        sampling = [_DRAWS, asdict(encoding.sampling)] if encoding.sampling else None
        rule = encoding.read.rule if file.format == "text" else encoding.read.text_field
        how = [file.format, rule, tokenizer.sha256, versions, sampling]
    parts = parts_of(file, encoding.read.rule)
    for part in parts:
        named = json.dumps([_FORMAT, source.content, part.start, part.stop, *how])
        key = sha256(named.encode(errors="surrogateescape")).hexdigest()
        entry = cache / "text" / key[:2] / key[2:34]
        measured = part.stop is not None and file.format != "parquet"
        stored = (part.stop or 0) - part.start if measured else file.size // len(parts)
        yield _Shard(source, part, encoding, tokenizer.vocab.size, stored, entry, cache / "staging")


def _encode_missing(shards: list[_Shard], tokenizer: Tokenizer, engine: Engine, progress: Progress) -> None:
    missing = [shard for shard in {shard.entry: shard for shard in shards}.values() if shard.kept() is None]
    if not missing:
        return
    encoding = missing[0].encoding
    _loaded[encoding.tokenizer, encoding.kind] = tokenizer  # which saves loading it where this process does the work
    try:
        with progress.step("encode text", sum(shard.stored_bytes for shard in missing), "bytes") as step:
            for _ in engine.run(_encode, missing, step.advance):
                pass
    finally:
        _loaded.clear()


def _encode(shard: _Shard, report: Report) -> None:
    """Encode a part where that has not been done. An engine's work."""
    if shard.kept() is not None:
        return
    file = shard.source.file
    if file.is_tokens:
        _map_tokens(shard, report)
    elif file.is_remote:
        with fetched(file, shard.staging) as (local, digest):
            _encode_text(shard, local, digest.sha256, {"input": asdict(digest)}, report)
    else:
        _encode_text(shard, file, shard.source.content, {}, report)


def _encode_text(shard: _Shard, file: CorpusFile, content: str, facts: dict[str, Any], report: Report) -> None:
    tokenizer, bad = _tokenizer(shard.encoding), BadRecords(shard.encoding.on_error)

    def blocks() -> Iterator[tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "documents"]]]:
        number = 0
        for texts, consumed in read_documents(file, shard.encoding.read, bad, shard.part):
            yield _ids_of(texts, tokenizer, shard, content, number)
            number += len(texts)
            report(consumed)

    def read() -> dict[str, Any]:
        refuse_changed(shard.source.states)
        return facts | {"skipped": bad.count, "shown": [str(record) for record in bad.shown]}

    write_entry(shard.entry, shard.staging, blocks(), id_dtype(shard.vocab_size), read)


def _map_tokens(shard: _Shard, report: Report) -> None:
    file = shard.source.file
    ids_file = open_token_bin(file, shard.vocab_size, shard.encoding.separator)
    ids, ends = ids_file.ids, ids_file.ends
    ids_file.check_ids(lambda count: report(count * ids.itemsize))
    refuse_changed(shard.source.states)
    offset = shard.source.size - ids.nbytes  # ids reach to the end of the file in every layout
    write_mapped_entry(shard.entry, shard.staging, (file.path.absolute(), offset, ids.dtype, len(ids)), ends, {})


def _ids_of(
    texts: list[str], tokenizer: Tokenizer, shard: _Shard, content: str, first: int
) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "documents"]]:
    sampling = shard.encoding.sampling
    if sampling is None:
        return tokenizer.encode(texts)
    assert isinstance(tokenizer, SamplingTokenizer)
    named = f"{sampling.seed} {content} {shard.part.start}"
    base = int.from_bytes(sha256(named.encode(errors="surrogateescape")).digest()[:8], "little")
    drawn = splitmix64(np.uint64(base), np.arange(first + 1, first + len(texts) + 1))
    seeds = (drawn >> np.uint64(32)).astype(np.int64)  # a seed of 32 bits for each document, by its number
    return tokenizer.sample(texts, sampling.alpha, seeds)


_loaded: dict[tuple[Path, TokenizerKind], Tokenizer] = {}


def _tokenizer(encoding: EncodingOptions) -> Tokenizer:
    """The tokenizer, loaded once in each process."""
    key = encoding.tokenizer, encoding.kind
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_tokenizer(*key)
    return _loaded[key]


def _inputs(shards: list[_Shard], parts: list[EncodedPart]) -> list[InputFile]:
    """The files that the parts are of, once each."""
    inputs: dict[str, InputFile] = {}
    for shard, part in zip(shards, parts, strict=True):
        source = shard.source
        size, digest = source.size, source.content.split()[0]
        if source.file.is_remote:
            size, digest = part.read["input"]["size"], part.read["input"]["sha256"]
        inputs.setdefault(source.file.location, InputFile(source.file.name, size, digest))
    return list(inputs.values())


def _skipped(parts: list[EncodedPart], progress: Progress) -> int:
    """How many records were skipped; a note shows the first of them."""
    skipped = sum(part.skipped for part in parts)
    if skipped:
        shown = [text for part in parts for text in part.read.get("shown", ())][:5]
        more = f"\n  and {skipped - len(shown):,} more" if skipped > len(shown) else ""
        progress.note(f"left out {skipped:,} bad record{'s' * (skipped > 1)}:\n  " + "\n  ".join(shown) + more)
    return skipped
