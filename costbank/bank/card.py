"""The README.md of a bank: a summary for a person who opens the directory."""

from typing import Any

import numpy as np

from costbank.bank.manifest import Manifest, NeighborFacts
from costbank.neighbors import NeighborTable
from costbank.vocab import TokenStatus, Vocab, display_bytes

__all__ = ["CardExample", "example_tokens", "write_card"]

_EXAMPLES = 12
_NEIGHBORS = 5

CardExample = tuple[bytes, list[bytes]]
"""A token and its nearest tokens, as bytes."""


def example_tokens(vocab: Vocab, table: NeighborTable) -> list[tuple[int, list[int]]]:
    """The ids of the tokens that a card shows, each with those of its nearest tokens.

    They are words of at least five letters: the most frequent, or the first if counts are unknown.
    """
    examples: list[tuple[int, list[int]]] = []
    if not table.k:
        return examples
    frequent = np.argsort(-vocab.counts, kind="stable")
    for token_id in frequent[: 50 * _EXAMPLES].tolist():
        token = vocab.token(token_id)
        word = token.startswith(b" ") and len(token) > 5 and token[1:].isalpha()
        if word and vocab.status[token_id] == TokenStatus.OK and table.ids[token_id, 0] >= 0:
            examples.append((token_id, [i for i in table.ids[token_id, :_NEIGHBORS].tolist() if i >= 0]))
            if len(examples) == _EXAMPLES:
                break
    return examples


def write_card(manifest: Manifest, examples: list[CardExample], advice: str = "") -> str:
    """The card of a bank in Markdown.

    Args:
        manifest: of the bank.
        examples: tokens to show with their nearest tokens.
        advice: what the bank's source says about the use of its vectors.
    """
    vectors, tokenizer = manifest.vectors, manifest.tokenizer
    status = ", ".join(f"{count:,} {name}" for name, count in manifest.status.items() if count)
    lines = [
        f"# Cost bank {manifest.id}",
        "",
        f"A frozen cost embedding for each of the {vectors.vocab:,} token ids of the tokenizer "
        f"`{tokenizer.file}` ({tokenizer.kind}), made by the source `{manifest.source}`.",
        "The cost of predicting token i where token t is right is 1 − ⟨e_i, e_t⟩, and 0 where i = t.",
        "",
        "| | |",
        "|---|---|",
        f"| vectors | {vectors.vocab:,} × {vectors.dim}, {vectors.dtype}, unit or zero rows |",
        f"| tokens | {status} |",
        f"| neighbors | {_table_quality(manifest.neighbors)} |",
        f"| tokenizer fingerprint | `{tokenizer.fingerprint}` |",
        f"| built | {manifest.created} by costbank {manifest.costbank} |",
        f"| reproducible bit for bit | {'yes' if manifest.reproducible else 'no'} |",
    ]
    lines += [f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in manifest.facts.items()]
    if advice:
        lines += ["", advice]
    if examples:
        lines += ["", "## Nearest tokens", "", "| token | nearest, by ascending cost |", "|---|---|"]
        lines += [f"| {_code(token)} | {' '.join(map(_code, nearest))} |" for token, nearest in examples]
    lines += ["", "Read it with `costbank.open_bank(path)`; check every byte with `costbank verify path`.", ""]
    return "\n".join(lines)


def _table_quality(neighbors: NeighborFacts) -> str:
    if not neighbors.k:
        return "no table"
    if neighbors.exact:
        return f"{neighbors.k} a token, exact"
    measured = f"recall@{neighbors.recall_at} {neighbors.recall:.4f} on {neighbors.sampled:,} rows"
    if tolerance := neighbors.recall_tolerance:
        measured += f", within {tolerance:g} of the exact costs"
    return f"{neighbors.k} a token, {measured}"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item["name"]) if isinstance(item, dict) else str(item) for item in value)
    if isinstance(value, int | float):
        return f"{value:,}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _code(token: bytes) -> str:
    text = display_bytes(token).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
