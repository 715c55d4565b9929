"""Encode a corpus as token ids: one cache entry for each part, written by any engine and reused by later builds.

The name of an entry is a digest of the part's content, the tokenizer, the versions of its libraries and the rules for
reading documents. Entries do not depend on the engine, so an interrupted run continues from the entries it finished.
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
    DEFAULT_PART_SIZES,
    BadRecords,
    CorpusFile,
    OnError,
    Part,
    PartSizes,
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
_SAMPLING_FORMAT = "costbank draws 1"


@dataclass(frozen=True)
class Sampling:
    """Random segmentation with the parameter `alpha`. Each document has its own seed, derived from `seed`."""

    alpha: float
    seed: int


@dataclass(frozen=True)
class EncodingOptions:
    """How files are encoded.

    Attributes:
        tokenizer: the tokenizer's file.
        kind: the kind of tokenizer, such as `sentencepiece`.
        read: what counts as a document.
        separator: the id that ends a document in files of token ids that have no index. None: one document per file.
        sampling: random segmentation. None: the tokenizer's best segmentation.
        on_error: what to do with unreadable records.
    """

    tokenizer: Path
    kind: TokenizerKind
    read: ReadOptions
    separator: int | None = None
    sampling: Sampling | None = None
    on_error: OnError = "refuse"


@dataclass(frozen=True)
class _Shard:
    """A part of a file, and the cache entry to encode it to."""

    source: FileContent
    part: Part
    encoding: EncodingOptions
    vocab_size: int
    stored_bytes: int
    entry: Path
    staging: Path

    def encoded(self) -> EncodedPart | None:
        """The finished entry; None if it is missing, or if it skipped records that must now be refused."""
        part = read_entry(self.entry)
        return None if part and part.skipped and self.encoding.on_error == "refuse" else part


def refuse_sampling(tokenizer: Tokenizer, sampling: Sampling) -> None:
    """Check that a tokenizer supports random segmentation.

    Raises:
        UsageError: the tokenizer does not support it, or not with this `alpha`.
    """
    if not isinstance(tokenizer, SamplingTokenizer):
        raise UsageError(
            f"{tokenizer.kind} tokenizers do not support sampling",
            "remove --sampling, or use a SentencePiece or BytePiece model",
        )
    tokenizer.sample(["a"], sampling.alpha, np.zeros(1, np.int64))


def encode_corpus(
    files: Sequence[CorpusFile], encoding: EncodingOptions, tokenizer: Tokenizer, engine: Engine, cache: Path,
    progress: Progress, part_sizes: PartSizes = DEFAULT_PART_SIZES,
) -> EncodedCorpus:  # fmt: skip
    """Encode the parts of the files that are not in the cache, and return all parts.

    Args:
        files: the files of the corpus.
        encoding: how to encode them.
        tokenizer: the tokenizer that `encoding` names.
        engine: runs the encoding.
        cache: the directory of the entries.
        progress: shows the steps, and a note about skipped records.
        part_sizes: how files are cut into parts. Different sizes give different entries.

    Raises:
        CorpusError: a file cannot be read or was changed while it was being read, or the corpus has no tokens.
        StorageError: the cache cannot be written.
        EngineError: workers died again and again.
    """
    with storage_errors(cache), no_abandoned(cache / "staging"):
        cache.mkdir(parents=True, exist_ok=True)
        sources = file_contents(files, engine, cache, progress)
        shards = [shard for source in sources for shard in _shards(source, encoding, tokenizer, cache, part_sizes)]
        _encode_missing(shards, tokenizer, engine, progress)
        parts = []
        for shard in shards:
            part = shard.encoded()
            if part is None:
                raise CorpusError(
                    f"the encoded text in {shard.entry} cannot be read", "check the disk and run the build again"
                )
            parts.append(part)
    mapped = dict.fromkeys(state for shard in shards if shard.source.file.is_tokens for state in shard.source.states)
    corpus = EncodedCorpus(
        tuple(_inputs(shards, parts)), tuple(parts), tokenizer.vocab.size, _skipped(parts, progress), tuple(mapped)
    )
    if corpus.tokens == 0:
        names = ", ".join(file.shown for file in files[:5])
        skipped = f"; skipped: {counted(corpus.skipped, 'unreadable record')}" if corpus.skipped else ""
        raise CorpusError(f"the corpus has no text: {names}{skipped}", "add files that contain text")
    return corpus


def _shards(
    source: FileContent, encoding: EncodingOptions, tokenizer: Tokenizer, cache: Path, part_sizes: PartSizes
) -> Iterator[_Shard]:
    file = source.file
    method: list[Any]
    if file.is_tokens:
        method = [str(file.path.absolute()), file.format, encoding.separator, tokenizer.vocab.size]
    else:
        versions = [f"{name} {version(name)}" for name in tokenizer.libraries]
        sampling = [_SAMPLING_FORMAT, asdict(encoding.sampling)] if encoding.sampling else None
        rule = encoding.read.rule if file.format == "text" else encoding.read.text_field
        method = [file.format, rule, tokenizer.sha256, versions, sampling]
    parts = parts_of(file, encoding.read.rule, part_sizes)
    for part in parts:
        identity = json.dumps([_FORMAT, source.content, part.start, part.stop, *method])
        key = sha256(identity.encode(errors="surrogateescape")).hexdigest()
        entry = cache / "text" / key[:2] / key[2:34]
        is_byte_range = part.stop is not None and file.format != "parquet"
        stored = (part.stop or 0) - part.start if is_byte_range else file.size // len(parts)
        yield _Shard(source, part, encoding, tokenizer.vocab.size, stored, entry, cache / "staging")


def _encode_missing(shards: list[_Shard], tokenizer: Tokenizer, engine: Engine, progress: Progress) -> None:
    missing = [shard for shard in {shard.entry: shard for shard in shards}.values() if shard.encoded() is None]
    if not missing:
        return
    encoding = missing[0].encoding
    _loaded[encoding.tokenizer, encoding.kind] = tokenizer  # so that work in this process does not load it again
    try:
        with progress.step("encode text", sum(shard.stored_bytes for shard in missing), "bytes") as step:
            for _ in engine.run(_encode, missing, step.advance):
                pass
    finally:
        _loaded.clear()


def _encode(shard: _Shard, report: Report) -> None:
    """Encode a part that is not in the cache. Runs in an engine."""
    if shard.encoded() is not None:
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
    offset = shard.source.size - ids.nbytes  # in every format, the ids are the last bytes of the file
    write_mapped_entry(shard.entry, shard.staging, (file.path.absolute(), offset, ids.dtype, len(ids)), ends)


def _ids_of(
    texts: list[str], tokenizer: Tokenizer, shard: _Shard, content: str, first: int
) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "documents"]]:
    sampling = shard.encoding.sampling
    if sampling is None:
        return tokenizer.encode(texts)
    assert isinstance(tokenizer, SamplingTokenizer)
    identity = f"{sampling.seed} {content} {shard.part.start}"
    base = int.from_bytes(sha256(identity.encode(errors="surrogateescape")).digest()[:8], "little")
    random_bits = splitmix64(np.uint64(base), np.arange(first + 1, first + len(texts) + 1))
    seeds = (random_bits >> np.uint64(32)).astype(np.int64)  # a 32-bit seed for each document, by its number
    return tokenizer.sample(texts, sampling.alpha, seeds)


_loaded: dict[tuple[Path, TokenizerKind], Tokenizer] = {}


def _tokenizer(encoding: EncodingOptions) -> Tokenizer:
    """The tokenizer, loaded once per process."""
    key = encoding.tokenizer, encoding.kind
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_tokenizer(*key)
    return _loaded[key]


def _inputs(shards: list[_Shard], parts: list[EncodedPart]) -> list[InputFile]:
    """The distinct files of the parts."""
    inputs: dict[str, InputFile] = {}
    for shard, part in zip(shards, parts, strict=True):
        source = shard.source
        size, digest = source.size, source.content.split()[0]
        if source.file.is_remote:
            size, digest = part.read["input"]["size"], part.read["input"]["sha256"]
        inputs.setdefault(source.file.location, InputFile(source.file.name, size, digest))
    return list(inputs.values())


def _skipped(parts: list[EncodedPart], progress: Progress) -> int:
    """The number of skipped records; a note shows the first ones."""
    skipped = sum(part.skipped for part in parts)
    if skipped:
        shown = [text for part in parts for text in part.read.get("shown", ())][:5]
        more = f"\n  and {skipped - len(shown):,} more" if skipped > len(shown) else ""
        progress.note(f"skipped {counted(skipped, 'bad record')}:\n  " + "\n  ".join(shown) + more)
    return skipped
