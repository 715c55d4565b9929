"""Routes for banks and their nearest tokens."""

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Response
from starlette.concurrency import run_in_threadpool

from costbank.bank import Bank, LoadedBank, NearestTokens
from costbank.errors import CostbankError, TokenNotFoundError, UsageError
from costbank.vocab import TokenMatch
from costbank_service.bank_cache import BankCache
from costbank_service.dependencies import banks_of, searches_of, settings_of
from costbank_service.problems import problem_responses
from costbank_service.query_string import QueryParameter, query_reader
from costbank_service.schemas import BankDetails, BankSummary, NearestAnswer
from costbank_service.search_pool import SearchPool
from costbank_service.settings import Settings

__all__ = ["router"]

_MAX_EXTRA_BYTES = 64

NEAREST = (
    QueryParameter("token", "string", "a word (king), piece:ing, id:123 or hex:e4bda0; its bytes need not be UTF-8"),
    QueryParameter("token_id", "integer", "the id of the token, instead of `token`", minimum=0),
    QueryParameter("k", "integer", "number of neighbors", default=10, minimum=1),
)

router = APIRouter(prefix="/v1/banks", tags=["banks"], responses=problem_responses(400))

Banks = Annotated[BankCache, Depends(banks_of)]
NoQuery = Depends(query_reader(()))


@router.get("", response_model=list[BankSummary], dependencies=[NoQuery])
def list_banks(banks: Banks) -> Response:
    """List the banks of the store; a damaged bank has a `problem`."""
    listed = []
    for bank in banks.store.banks():
        entry: dict[str, Any] = {"name": bank.name, "id": bank.id, "latest": bank.latest, "problem": None}
        try:
            manifest = banks.manifest_at(bank.path)
        except CostbankError as error:
            if not bank.path.exists():  # another process has just removed it
                continue
            entry["problem"] = error.title
        else:
            entry |= {"source": manifest.source, "vocab": manifest.vectors.vocab, "dim": manifest.vectors.dim}
            entry["created"] = manifest.created
        listed.append(entry)
    return _json(listed)


@router.get("/{ref}", response_model=BankDetails, dependencies=[NoQuery], responses=problem_responses(404, 500))
def show_bank(ref: str, banks: Banks) -> Response:
    """Show what a bank contains and how it was made. A name refers to its latest bank; the answer has the id."""
    name, manifest = banks.manifest(ref)
    return _json({"name": name, **manifest.model_dump(include=set(BankDetails.model_fields))})


@router.get(
    "/{ref}/nearest", response_model=NearestAnswer, responses=problem_responses(404, 500, 503),
    openapi_extra={"parameters": [parameter.openapi() for parameter in NEAREST]},
)  # fmt: skip
async def nearest(
    ref: str,
    banks: Banks,
    settings: Annotated[Settings, Depends(settings_of)],
    searches: Annotated[SearchPool, Depends(searches_of)],
    query: Annotated[dict[str, Any], Depends(query_reader(NEAREST))],
) -> Response:
    """List the k tokens with the lowest cost to a token, in ascending order.

    A k beyond the bank's neighbor table needs a search; 503 if too many searches are waiting.
    """
    k = query["k"]
    _check_nearest(query, settings.max_k)

    def from_table() -> tuple[LoadedBank, TokenMatch, NearestTokens | None]:
        bank = banks.bank(ref)
        match = _match(bank, query["token"]) if query["token"] is not None else bank.vocab.match(query["token_id"])
        return bank, match, bank.nearest_in_table(match.id, k)

    bank, match, answer = await run_in_threadpool(from_table)
    if answer is None:
        answer = await searches.run(lambda: banks.search(bank, match.id, k))
    about = asdict(bank.vocab.describe(match))
    neighbors = [asdict(neighbor) for neighbor in answer.neighbors]
    return _json({"bank": bank.name, "id": bank.id, "token": about, "exact": answer.exact, "neighbors": neighbors})


def _check_nearest(query: dict[str, Any], max_k: int) -> None:
    token, token_id, k = query["token"], query["token_id"], query["k"]
    if (token is None) == (token_id is None):
        wrong = "neither token nor token_id is given" if token is None else "both token and token_id are given"
        raise UsageError(wrong, "use either ?token=king or ?token_id=123")
    if not 1 <= k <= max_k:
        raise UsageError(
            f"k is {k}, but this service returns 1 to {max_k:,} neighbors", f"choose a k from 1 to {max_k:,}"
        )


def _match(bank: Bank, token: str) -> TokenMatch:
    """The token that a text matches. A text much longer than any token is not searched, and the error omits it."""
    size, longest = len(token.encode("utf-8", "surrogateescape")), int(np.diff(bank.vocab.offsets).max())
    if size > _MAX_EXTRA_BYTES + 2 * longest:  # hex: takes two digits per byte
        raise TokenNotFoundError(f"no token has {size:,} bytes; the longest has {longest}", "use a shorter token")
    return bank.vocab.match(token)


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
