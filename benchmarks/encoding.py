"""Compare the encoding of a text with the tokenizer library's own batch call, for three kinds of tokenizer.

Our time covers everything from a file to ids in an empty cache: starting two processes, which load the tokenizer,
digest, reading, encoding, writing. The library gets the lines as a list and uses its own threads; its time ends when it
returns its own result objects. For BytePiece, the batch call is our tokenizer's, with the list. Both run in turns.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.builds import PROCESSES, encode, local_engine
from benchmarks.corpora import bytepiece_model, english, english_model
from benchmarks.record import record
from costbank.tokenizers import load_tokenizer

__all__ = ["run"]

_RUNS = 3


def run() -> None:
    lines = [line for line in english().read_text("utf-8").split("\n") if line.strip()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, (make, batch_call) in _KINDS.items():
            model = make(folder)
            tokenizer, theirs = load_tokenizer(model), batch_call(model)
            ours_s, theirs_s = [], []
            for number in range(_RUNS):
                began = time.perf_counter()
                with local_engine(cache := folder / f"{kind}{number}") as engine:
                    encode(english(), model, cache, engine, tokenizer=tokenizer)
                between = time.perf_counter()
                theirs(lines)
                ours_s.append(between - began)
                theirs_s.append(time.perf_counter() - between)
            ratios = [library / our for library, our in zip(theirs_s, ours_s, strict=True)]
            workload = f"{kind}: english.txt, {len(lines):,} lines, {PROCESSES} processes or threads"
            libraries = ("sentencepiece", "tokenizers", "numpy")
            record("encoding", "ours, with all that is around it", "s", ours_s, "", libraries, workload)
            record("encoding", "the library's batch call", "s", theirs_s, "", libraries, workload)
            record("encoding", "speed of ours / the library's", "ratio", ratios, ">= 0.8", libraries, workload)


def _byte_level_model(folder: Path) -> Path:
    """A tokenizer.json of byte-level BPE with 16,000 tokens, trained on the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train([str(english())], trainers.BpeTrainer(vocab_size=16_000, initial_alphabet=alphabet))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def _sentencepiece_call(model: Path) -> Callable[[list[str]], Any]:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(model))
    return lambda lines: processor.encode(lines, num_threads=PROCESSES)


def _huggingface_call(model: Path) -> Callable[[list[str]], Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model))
    return lambda lines: tokenizer.encode_batch_fast(lines, add_special_tokens=False)


def _bytepiece_call(model: Path) -> Callable[[list[str]], Any]:
    return load_tokenizer(model).encode


_KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Callable[[list[str]], Any]]]] = {
    "sentencepiece": (english_model, _sentencepiece_call),
    "huggingface": (_byte_level_model, _huggingface_call),
    "bytepiece": (lambda _: bytepiece_model(), _bytepiece_call),
}

if __name__ == "__main__":
    run()
