"""The speed of counting pairs: English text, and a stream of 10⁹ ids in 4 GB of memory.

The ids of the stream are drawn independently, by Zipf's law, from 50,000. Therefore it has far more distinct pairs than
text of the same length, and counting must write them to disk and merge them. `$COSTBANK_BENCH_TOKENS` makes it shorter.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.builds import PROCESSES, encode, local_engine
from benchmarks.corpora import english, english_model
from benchmarks.processes import watched
from benchmarks.record import record
from costbank.corpus import EncodingOptions, encode_corpus
from costbank.corpus.readers import ReadOptions, find_files
from costbank.engines import open_engine
from costbank.progress import QuietProgress
from costbank.sources.cooccurrence.contexts import context_set
from costbank.sources.cooccurrence.counting import pair_weights
from costbank.sources.cooccurrence.pair_counts import count_pairs
from costbank.tokenizers import load_tokenizer

__all__ = ["count_stream", "run"]

_RUNS, _WINDOW = 5, 5
_TOKENS = int(os.environ.get("COSTBANK_BENCH_TOKENS", 10**9))
_MEMORY, _VOCAB, _PARTS, _DOCUMENT_TOKENS, _SEPARATOR = 4 * 10**9, 50_000, 8, 500, 0
_STEP, _DRAWS = 1 << 24, 1 << 20

_COUNT = """
import sys
from pathlib import Path
from benchmarks.counting import count_stream
count_stream(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def run() -> None:
    _count_text()
    _count_long_stream()


def _count_text() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, rates = Path(name), dict[str, list[float]]()
        with local_engine(folder) as engine:
            corpus = encode(english(), english_model(folder), folder / "text", engine)
            weights = pair_weights(_WINDOW)
            kinds = {
                "text": None,
                "text, left side": context_set(weights, "left", False, 1, 1 << 20, corpus.vocab_size),
                "text, left positions and bigrams": context_set(weights, "left", True, 2, 1 << 20, corpus.vocab_size),
            }
            for number in range(_RUNS):
                for kind, contexts in kinds.items():
                    began = time.perf_counter()
                    cache = folder / f"{kind} {number}"
                    count_pairs(corpus, weights, engine, cache, QuietProgress(), contexts=contexts)
                    rates.setdefault(kind, []).append(corpus.tokens / (time.perf_counter() - began))
        note = (
            f"english.txt, {corpus.tokens:,} tokens of 16k pieces, window {_WINDOW}, {PROCESSES} processes that run "
            "already; with merging and the digest of all counts"
        )
        record("counting", "text", "tokens/s", rates["text"], ">= 2e6", ("numpy",), note)
        for kind, target in list(zip(kinds, ("", ">= 0.9", ""), strict=True))[1:]:
            ratios = [one / other for one, other in zip(rates[kind], rates["text"], strict=True)]
            record("counting", f"{kind} / text", "ratio", ratios, target, ("numpy",), note)


def _count_long_stream() -> None:
    with tempfile.TemporaryDirectory() as name:
        stream, cache = Path(name) / "stream", Path(name) / "cache"
        _write_stream(stream)
        usage = watched([sys.executable, "-c", _COUNT, str(stream), str(cache)], cache)
        result = json.loads(usage.output)
    note = (
        f"{result['tokens']:,} ids drawn by Zipf's law from {_VOCAB:,}, {result['pairs']:,} distinct pairs, window "
        f"{_WINDOW}, {PROCESSES} processes, --memory 4GB"
    )
    for measure, unit, value, target in (
        ("long stream", "tokens/s", result["tokens"] / result["seconds"], ""),
        ("long stream, digest and mapping included", "tokens/s", result["tokens"] / result["whole_seconds"], ""),
        ("peak memory of the long stream", "bytes", usage.memory_mb * 1e6, "< 4e9"),
        ("of that, in no file", "bytes", usage.own_mb * 1e6, ""),
        ("most disk of the long stream", "bytes", usage.disk_mb * 1e6, ""),
    ):
        record("counting", measure, unit, [value], target, ("numpy",), note)


def _write_stream(folder: Path) -> None:
    """Write files of 16-bit ids: 1 to 49,999 with probabilities ∝ 1 / rank, and 0 at the end of each document."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(f"token{i}" for i in range(_VOCAB)) + "\n")
    random = np.random.default_rng(0)
    shares = np.cumsum(1 / np.arange(1, _VOCAB))
    # One lookup in this table draws an id. The table is large enough to contain even the rarest id.
    drawn = np.searchsorted(shares, (np.arange(_DRAWS) + 0.5) / _DRAWS * shares[-1]).astype(np.uint16) + np.uint16(1)
    for part in range(_PARTS):
        size = _TOKENS // _PARTS
        ids = np.lib.format.open_memmap(folder / f"part{part}.npy", "w+", np.dtype("<u2"), (size,))
        for start in range(0, size, _STEP):
            block = drawn[random.integers(0, _DRAWS, min(_STEP, size - start), np.uint32)]
            block[random.integers(0, len(block), len(block) // _DOCUMENT_TOKENS)] = _SEPARATOR
            ids[start : start + len(block)] = block
        ids[-1] = _SEPARATOR
        ids.flush()


def count_stream(stream: Path, cache: Path) -> None:
    """Map and count the stream, and print the results. Runs in its own process, which is measured."""
    tokenizer, files = load_tokenizer(stream / "vocab.txt"), find_files([f"{stream}/*.npy"])
    encoding = EncodingOptions(stream / "vocab.txt", "auto", ReadOptions(), _SEPARATOR)
    began = time.perf_counter()
    with open_engine("local", PROCESSES, _MEMORY, None, cache) as engine:
        corpus = encode_corpus(files, encoding, tokenizer, engine, cache, QuietProgress())
        mapped = time.perf_counter()
        pairs = count_pairs(corpus, pair_weights(_WINDOW), engine, cache, QuietProgress()).pairs
        ended = time.perf_counter()
    print(json.dumps({"tokens": corpus.tokens, "pairs": pairs, "seconds": ended - mapped,
                      "whole_seconds": ended - began}))  # fmt: skip


if __name__ == "__main__":
    run()
