"""The common steps of sources that use a corpus: find and check its files, then encode them and count tokens."""

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
from costbank.files import locked, remove_if_empty, storage_errors
from costbank.hub import local_path
from costbank.plurals import counted
from costbank.progress import Progress
from costbank.sources.base import InputFile, configured_tokenizer
from costbank.sources.corpus_settings import CorpusBuild
from costbank.tokenizers import Tokenizer

__all__ = ["CorpusPlan", "LearnedCorpus", "plan_corpus"]


Config = TypeVar("Config", bound=CorpusBuild)


@dataclass(frozen=True)
class LearnedCorpus:
    """An encoded corpus, the number of occurrences of each id, and the engine, which is still open."""

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
    """A corpus after its checks: its files exist and its tokenizer is loaded."""

    config: Config
    tokenizer: Tokenizer
    files: tuple[CorpusFile, ...]
    notes: tuple[str, ...]

    @contextmanager
    def hold_cache(self) -> Iterator[None]:
        """Hold a shared lock of the cache while its entries are used, so that no other process clears it.

        Raises:
            StorageError: the cache cannot be written.
        """
        cache = self.config.cache.absolute()
        with ExitStack() as resources:
            with storage_errors(cache):
                for directory in reversed([path for path in (cache, *cache.parents) if not path.exists()]):
                    resources.callback(remove_if_empty, directory)
                cache.mkdir(parents=True, exist_ok=True)
                resources.enter_context(locked(cache, shared=True))
            yield

    @contextmanager
    def encode(self, min_count: int, progress: Progress) -> Iterator[LearnedCorpus]:
        """Encode the parts of the corpus that are not in the cache, and count tokens; the engine is closed on exit.

        Raises:
            CorpusError: the text cannot be read, or fewer than two ids occur at least `min_count` times.
        """
        config, engine_config, cache = self.config, self.config.engine, self.config.cache.absolute()
        for note in self.notes:
            progress.note(note)
        with ExitStack() as resources:
            engine = resources.enter_context(
                open_engine(
                    engine_config.kind, engine_config.processes, engine_config.memory, engine_config.ray_address, cache
                )
            )
            files = self.files
            if STANDARD_INPUT in config.corpus.files:
                spool = resources.enter_context(stdin_spool(cache / "staging"))
                files += _standard_input(config, spool, progress)
            encoded = encode_corpus(files, _encoding(config), self.tokenizer, engine, cache, progress)
            counts = token_counts(encoded, engine, lambda _: None)
            frequent = int((counts >= min_count).sum())
            if frequent < 2:
                raise CorpusError(
                    f"in the {counted(encoded.tokens, 'token')} of the corpus, only "
                    f"{'1 id occurs' if frequent == 1 else f'{frequent} ids occur'} at least "
                    f"{counted(min_count, 'time')}; vectors need at least two such ids",
                    f"use more text, or --set {config.source}.min_count=1",
                )
            yield LearnedCorpus(encoded, counts, engine)


def plan_corpus(config: Config) -> CorpusPlan[Config]:
    """Find the files and load the tokenizer.

    Raises:
        UsageError: no corpus or no tokenizer is named, or the tokenizer does not support a setting.
        CorpusError, InputError, InputNotFoundError: a file is missing, cannot be read or is not a corpus file.
        TokenizerError: the tokenizer cannot be read, or cannot encode text.
    """
    if not config.corpus.files:
        raise UsageError(f"the source {config.source} needs a corpus", "name one with --corpus FILE")
    names = [name for name in config.corpus.files if name != STANDARD_INPUT]
    notes: list[str] = []
    files = _find(names, config, notes.append) if names else ()
    if config.engine.kind == "ray":
        require("ray", "scale")
        files = tuple(file if file.is_remote else replace(file, location=str(file.path.absolute())) for file in files)
    tokenizer = configured_tokenizer(config)
    if config.corpus.sampling is not None:
        refuse_sampling(tokenizer, Sampling(config.corpus.sampling, config.corpus.sampling_seed))
    if tokenizer.kind == "gguf" and not all(file.is_tokens for file in files):
        raise TokenizerError(
            f"{tokenizer.file} is a GGUF file, which has tokens but cannot encode text",
            "use a tokenizer.json or a SentencePiece model as the tokenizer",
        )
    width_notes = (check_token_bin(file, tokenizer.vocab.size) for file in files if file.is_tokens)
    notes.extend(note for note in width_notes if note)
    return CorpusPlan(config, tokenizer, files, tuple(notes))


def _find(
    names: Sequence[str], config: CorpusBuild, note: Callable[[str], None], spool: Path | None = None
) -> tuple[CorpusFile, ...]:
    return find_files(names, format_name=config.corpus.format, spool=spool, note=note, on_error=config.corpus.on_error)


def _standard_input(config: CorpusBuild, spool: Path, progress: Progress) -> tuple[CorpusFile, ...]:
    files = _find([STANDARD_INPUT], config, progress.note, spool)
    if any(file.is_tokens for file in files):
        raise UsageError("token ids cannot be read from standard input", "write them to a file and name the file")
    return files


def _encoding(config: CorpusBuild) -> EncodingOptions:
    corpus = config.corpus
    return EncodingOptions(
        local_path(config.tokenizer or Path(), "tokenizer").absolute(),
        config.tokenizer_kind,
        ReadOptions(corpus.documents, corpus.text_field),
        corpus.separator,
        None if corpus.sampling is None else Sampling(corpus.sampling, corpus.sampling_seed),
        corpus.on_error,
    )
