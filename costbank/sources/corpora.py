"""What sources that learn from a corpus share: its files found and checked, then encoded and counted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int64

from costbank.corpus import EncodedCorpus, EncodingOptions, Sampling, encode_corpus, refuse_sampling, token_counts
from costbank.corpus.readers import STANDARD_INPUT, CorpusFile, ReadOptions, check_token_bin, find_files, stdin_spool
from costbank.engines import Engine, open_engine
from costbank.errors import CorpusError, TokenizerError, UsageError, require
from costbank.progress import Progress
from costbank.sources.base import InputFile, given_tokenizer
from costbank.sources.corpus_settings import CorpusBuild
from costbank.tokenizers import Tokenizer

__all__ = ["CorpusPlan", "LearntCorpus", "plan_corpus"]


Config = TypeVar("Config", bound=CorpusBuild)


@dataclass(frozen=True)
class LearntCorpus:
    """A corpus as ids, how often each id occurs, and the engine that read it, which is open."""

    encoded: EncodedCorpus
    counts: Int64[np.ndarray, "vocab"]
    engine: Engine

    @property
    def facts(self) -> dict[str, Any]:
        facts = {"corpus_documents": self.encoded.documents, "corpus_tokens": self.encoded.tokens}
        return facts | ({"skipped_records": self.encoded.skipped} if self.encoded.skipped else {})

    @property
    def inputs(self) -> tuple[InputFile, ...]:
        return self.encoded.inputs


@dataclass(frozen=True)
class CorpusPlan(Generic[Config]):
    """A corpus whose files are there and whose tokenizer is loaded."""

    config: Config
    tokenizer: Tokenizer
    files: tuple[CorpusFile, ...]
    notes: tuple[str, ...]

    @contextmanager
    def learnt(self, min_count: int, progress: Progress) -> Iterator[LearntCorpus]:
        """Encode what has not been encoded before, and count ids.

        Raises:
            CorpusError: the text cannot be read, or fewer than two ids occur often enough.
        """
        config, asked = self.config, self.config.engine
        for note in self.notes:
            progress.note(note)
        with ExitStack() as held:
            engine = held.enter_context(
                open_engine(asked.kind, asked.processes, asked.memory, asked.ray_address, config.cache.absolute())
            )
            files = self.files
            if STANDARD_INPUT in config.corpus.files:
                spool = held.enter_context(stdin_spool(config.cache.absolute() / "staging"))
                files += _standard_input(config, spool, progress)
            encoded = encode_corpus(files, _encoding(config), self.tokenizer, engine, config.cache.absolute(), progress)
            counts = token_counts(encoded, engine, lambda _: None)
            frequent = int((counts >= min_count).sum())
            if frequent < 2:
                raise CorpusError(
                    f"of the corpus's {encoded.tokens:,} tokens, {frequent} "
                    f"{'id occurs' if frequent == 1 else 'ids occur'} {min_count} times or more; "
                    "vectors need at least two ids to tell apart",
                    f"give more text, or --set {config.source}.min_count=1",
                )
            yield LearntCorpus(encoded, counts, engine)


def plan_corpus(config: Config) -> CorpusPlan[Config]:
    """Find the files and load the tokenizer.

    Raises:
        UsageError: there is no text or no tokenizer, or a setting does not fit the tokenizer.
        InputError, InputNotFoundError: a file cannot be read.
        TokenizerError: the tokenizer has no way to encode text.
    """
    if not config.corpus.files:
        raise UsageError(f"a bank of the source {config.source} needs text", "give --corpus FILE")
    named = [name for name in config.corpus.files if name != STANDARD_INPUT]
    notes: list[str] = []
    files = _found(named, config, notes.append) if named else ()
    if config.engine.kind == "ray":
        require("ray", "scale")
        files = tuple(file if file.is_remote else replace(file, location=str(file.path.absolute())) for file in files)
    tokenizer = given_tokenizer(config)
    if config.corpus.sampling is not None:
        refuse_sampling(tokenizer, Sampling(config.corpus.sampling, config.corpus.sampling_seed))
    if tokenizer.kind == "gguf" and not all(file.is_tokens for file in files):
        raise TokenizerError(
            "a GGUF file's tokens alone cannot encode text",
            "give a tokenizer file that can: tokenizer.json, a SentencePiece model",
        )
    checked = (check_token_bin(file, tokenizer.vocab.size) for file in files if file.is_tokens)
    notes.extend(note for note in checked if note)
    return CorpusPlan(config, tokenizer, files, tuple(notes))


def _found(
    named: Sequence[str], config: CorpusBuild, note: Callable[[str], None], spool: Path | None = None
) -> tuple[CorpusFile, ...]:
    return find_files(named, format_name=config.corpus.format, spool=spool, note=note, on_error=config.corpus.on_error)


def _standard_input(config: CorpusBuild, spool: Path, progress: Progress) -> tuple[CorpusFile, ...]:
    found = _found([STANDARD_INPUT], config, progress.note, spool)
    if any(file.is_tokens for file in found):
        raise UsageError("token ids are mapped from disk, and not read from standard input", "write them to a file")
    return found


def _encoding(config: CorpusBuild) -> EncodingOptions:
    corpus = config.corpus
    return EncodingOptions(
        (config.tokenizer or Path()).absolute(),
        config.tokenizer_kind,
        ReadOptions(corpus.documents, corpus.text_field),
        corpus.separator,
        None if corpus.sampling is None else Sampling(corpus.sampling, corpus.sampling_seed),
        corpus.on_error,
    )
