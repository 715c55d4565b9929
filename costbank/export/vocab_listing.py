"""The file next to an export that lists the token of each row, as JSON lines."""

import json
from collections.abc import Iterable
from pathlib import Path

from costbank.export.words import token_words
from costbank.vocab import Vocab

__all__ = ["LISTING_SUFFIX", "estimate_listing_bytes", "write_listing"]

LISTING_SUFFIX = ".vocab.jsonl"


def write_listing(path: Path, vocab: Vocab, ids: Iterable[int]) -> None:
    """Write a line for each id: `id`, `word`, `text`, `hex` (its bytes), `status`, `count` (null if unknown)."""
    words = token_words(vocab)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        for token_id in ids:
            count = int(vocab.counts[token_id])
            line = {
                "id": token_id,
                "word": words[token_id],
                "text": vocab.display(token_id),
                "hex": vocab.token(token_id).hex(),
                "status": vocab.status_of(token_id).name.lower(),
                "count": None if count < 0 else count,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def estimate_listing_bytes(vocab: Vocab) -> int:
    return 100 * vocab.size + 6 * len(vocab.data)
