"""Banks, and their nearest-cost tokens."""

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Response
from starlette.concurrency import run_in_threadpool

from costbank.bank import Bank, LoadedBank, NearestTokens
from costbank.errors import CostbankError, TokenNotFoundError, UsageError
from costbank.vocab import TokenMatch
from costbank_service.dependencies import registry_of, searches_of, settings_of
from costbank_service.problems import problem_responses
from costbank_service.query import QueryParameter, query_reader
from costbank_service.registry import Registry
from costbank_service.schemas import BankDetails, BankSummary, NearestAnswer
from costbank_service.searches import SearchPool
from costbank_service.settings import Settings

__all__ = ["router"]

_MOST_TOKEN_BYTES = 64

NEAREST = (
    QueryParameter("token", "string", "a word (king), piece:ing, id:123 or hex:e4bda0; its bytes need not be UTF-8"),
    QueryParameter("token_id", "integer", "the token's id, instead of token", minimum=0),
    QueryParameter("k", "integer", "how many neighbors", default=10, minimum=1),
)

router = APIRouter(prefix="/v1/banks", tags=["banks"], responses=problem_responses(400))

OpenRegistry = Annotated[Registry, Depends(registry_of)]
NoQuery = Depends(query_reader(()))


@router.get("", response_model=list[BankSummary], dependencies=[NoQuery])
def list_banks(registry: OpenRegistry) -> Response:
    """Every bank of the store; a damaged one is listed with its problem."""
    listed = []
    for place in registry.store.banks():
        entry: dict[str, Any] = {"name": place.name, "id": place.id, "latest": place.latest, "problem": None}
        try:
            manifest = registry.manifest_at(place.path)
        except CostbankError as error:
            entry["problem"] = error.title
        else:
            entry |= {"source": manifest.source, "vocab": manifest.vectors.vocab, "dim": manifest.vectors.dim}
            entry["created"] = manifest.created
        listed.append(entry)
    return _json(listed)


@router.get("/{ref}", response_model=BankDetails, dependencies=[NoQuery], responses=problem_responses(404, 500))
def show_bank(ref: str, registry: OpenRegistry) -> Response:
    """What a bank holds and where it came from. A name means its latest bank, and the answer has the id."""
    name, manifest = registry.manifest(ref)
    return _json({"name": name, **manifest.model_dump(include=set(BankDetails.model_fields))})


@router.get(
    "/{ref}/nearest", response_model=NearestAnswer, responses=problem_responses(404, 500, 503),
    openapi_extra={"parameters": [parameter.openapi() for parameter in NEAREST]},
)  # fmt: skip
async def nearest(
    ref: str,
    registry: OpenRegistry,
    settings: Annotated[Settings, Depends(settings_of)],
    searches: Annotated[SearchPool, Depends(searches_of)],
    query: Annotated[dict[str, Any], Depends(query_reader(NEAREST))],
) -> Response:
    """The k tokens of least cost to a token, by ascending cost.

    Beyond the bank's neighbor table they are searched for; 503 when too many such searches wait.
    """
    k = query["k"]
    _check_nearest(query, settings.max_k)

    def from_table() -> tuple[LoadedBank, TokenMatch, NearestTokens | None]:
        bank = registry.bank(ref)
        match = _match(bank, query["token"]) if query["token"] is not None else bank.vocab.match(query["token_id"])
        return bank, match, bank.nearest_in_table(match.id, k)

    bank, match, answer = await run_in_threadpool(from_table)
    if answer is None:
        answer = await searches.run(lambda: registry.search(bank, match.id, k))
    about = asdict(bank.vocab.describe(match))
    neighbors = [asdict(neighbor) for neighbor in answer.neighbors]
    return _json({"bank": bank.name, "id": bank.id, "token": about, "exact": answer.exact, "neighbors": neighbors})


def _check_nearest(query: dict[str, Any], max_k: int) -> None:
    token, token_id, k = query["token"], query["token_id"], query["k"]
    if (token is None) == (token_id is None):
        wrong = "neither token nor token_id is given" if token is None else "both token and token_id are given"
        raise UsageError(wrong, "ask for ?token=king, or for ?token_id=123")
    if not 1 <= k <= max_k:
        raise UsageError(
            f"k is {k}, and this service gives 1 to {max_k:,} neighbors", f"choose a k from 1 to {max_k:,}"
        )


def _match(bank: Bank, token: str) -> TokenMatch:
    """What a text names; where it is far longer than every token nothing is searched, nor echoed."""
    size, longest = len(token.encode("utf-8", "surrogateescape")), int(np.diff(bank.vocab.offsets).max())
    if size > _MOST_TOKEN_BYTES + 2 * longest:  # hex: takes two letters a byte
        raise TokenNotFoundError(f"no token has {size:,} bytes; the longest has {longest}", "give a shorter token")
    return bank.vocab.match(token)


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
