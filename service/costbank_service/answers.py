"""The parts of answers, as plain dicts; `costbank_service.schemas` describes them."""

from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
from fastapi import Response
from jaxtyping import Float32, Integer

from costbank.bank import LoadedBank, NearestTokens
from costbank.errors import TokenNotFoundError, UsageError
from costbank.vocab import TokenMatch, TokenStatus

__all__ = [
    "Entries",
    "check_k",
    "json_response",
    "match_text",
    "matched_token",
    "nearest_answer",
    "neighbor_entries",
    "search_entries",
    "table_entries",
    "text_is_too_long",
    "token_entry",
    "token_facts",
]  # fmt: skip

_MAX_EXTRA_BYTES = 64
_STATUS = [status.name.lower() for status in TokenStatus]

Entries = list[dict[str, Any]]


def json_response(document: Any) -> Response:
    """The document as JSON; NumPy arrays and float32 numbers with as few digits as their values need."""
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def nearest_answer(bank: LoadedBank, match: TokenMatch, entries: Entries, exact: bool) -> dict[str, Any]:
    return {
        "bank": bank.name, "id": bank.id, "token": matched_token(bank, match), "exact": exact, "neighbors": entries,
    }  # fmt: skip


def table_entries(bank: LoadedBank, token: int, k: int) -> Entries | None:
    """The k neighbors of a token from the table in memory; None if the table has fewer.

    Raises:
        UsageError: k is not below the number of tokens.
    """
    if not k < bank.size:
        others = bank.size - 1
        raise UsageError(f"k is {k}, but this bank has {others:,} other tokens", f"give a k from 1 to {others:,}")
    ids, costs = bank.neighbors.ids[token, :k], bank.neighbors.costs[token, :k]
    if k > bank.neighbors.k and (ids >= 0).all():
        return None
    return neighbor_entries(bank, ids, costs)


def neighbor_entries(
    bank: LoadedBank, ids: Integer[np.ndarray, "neighbors"], costs: Float32[np.ndarray, "neighbors"]
) -> Entries:
    """A row of a table without its padding, which is negative."""
    texts = bank.vocab.texts
    return [
        {"id": token, "text": texts[token], "cost": cost}
        for token, cost in zip(ids.tolist(), costs, strict=True)
        if token >= 0
    ]


def search_entries(answer: NearestTokens) -> Entries:
    return [asdict(neighbor) for neighbor in answer.neighbors]


def matched_token(bank: LoadedBank, match: TokenMatch) -> dict[str, Any]:
    """A token, and the other token that the same text can mean."""
    other = None if match.other is None else token_facts(bank, match.other)
    return {**token_facts(bank, match.id), "other": other}


def token_facts(bank: LoadedBank, token: int) -> dict[str, Any]:
    count = int(bank.vocab.counts[token])
    status = _STATUS[int(bank.vocab.status[token])]
    return {"id": token, "text": bank.vocab.texts[token], "status": status, "count": count if count >= 0 else None}


def token_entry(bank: LoadedBank, token: int) -> dict[str, Any]:
    """A token with its bytes."""
    return {**token_facts(bank, token), "bytes": bank.vocab.token(token).hex()}


def check_k(k: int, max_k: int) -> None:
    if not 1 <= k <= max_k:
        raise UsageError(
            f"k is {k}, but this service returns 1 to {max_k:,} neighbors", f"choose a k from 1 to {max_k:,}"
        )


def text_is_too_long(bank: LoadedBank, token: str) -> bool:
    """Whether a text is much longer than any token, so that it is not worth a search."""
    size = len(token.encode("utf-8", "surrogateescape"))
    return size > _MAX_EXTRA_BYTES + 2 * bank.vocab.longest  # hex: takes two digits per byte


def match_text(bank: LoadedBank, token: str) -> TokenMatch:
    """The token that a text names; an error omits a text that is too long.

    Raises:
        TokenNotFoundError: no token matches; finding similar ones takes a pass over all tokens.
    """
    if text_is_too_long(bank, token):
        size = len(token.encode("utf-8", "surrogateescape"))
        raise TokenNotFoundError(
            f"no token has {size:,} bytes; the longest has {bank.vocab.longest}", "use a shorter token"
        )
    return bank.vocab.match(token)
