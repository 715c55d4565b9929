"""The text of the benchmarks, and a tokenizer that is trained on it."""

import os
from pathlib import Path

from costbank.tokenizers.train import train_sentencepiece

__all__ = ["bytepiece_model", "english", "english_model"]

_SHARED = Path(__file__).parents[2] / "shared" / "data"


def english() -> Path:
    """4.2 million words of English, one paragraph per line: `$COSTBANK_BENCH_TEXT`, else the shared data."""
    path = Path(os.environ.get("COSTBANK_BENCH_TEXT", _SHARED / "english.txt"))
    if not path.is_file():
        raise SystemExit(
            f"{path} does not exist; set $COSTBANK_BENCH_TEXT to a large English text, one paragraph per line"
        )
    return path


def english_model(directory: Path) -> Path:
    """A SentencePiece unigram model of 16,000 pieces, trained on that text."""
    return train_sentencepiece([english()], directory / "english16k.model", 16_000)


def bytepiece_model() -> Path:
    """A BytePiece model of 80,000 pieces: `$COSTBANK_BENCH_BYTEPIECE`, else the shared data."""
    path = Path(os.environ.get("COSTBANK_BENCH_BYTEPIECE", _SHARED / "bytepiece_80k.model"))
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; set $COSTBANK_BENCH_BYTEPIECE to a BytePiece model")
    return path
