"""The vocabulary as JSON lines: what the rows or words of an exported file stand for."""

import json
from collections.abc import Iterable
from pathlib import Path

from costbank.export.words import words
from costbank.vocab import Vocab

__all__ = ["LISTING_SUFFIX", "listing_bytes", "write_listing"]

LISTING_SUFFIX = ".vocab.jsonl"


def write_listing(path: Path, vocab: Vocab, ids: Iterable[int]) -> None:
    """Write a line for each id: `id`, `word`, `text`, `hex` (its bytes), `status`, `count` (null where unknown)."""
    names = words(vocab)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        for token_id in ids:
            count = int(vocab.counts[token_id])
            line = {
                "id": token_id,
                "word": names[token_id],
                "text": vocab.display(token_id),
                "hex": vocab.token(token_id).hex(),
                "status": vocab.status_of(token_id).name.lower(),
                "count": None if count < 0 else count,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def listing_bytes(vocab: Vocab) -> int:
    """About how many bytes that takes."""
    return 100 * vocab.size + 6 * len(vocab.data)
