"""Routes for the tokens nearest to a token, to several tokens, or to vectors."""

from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from costbank.bank import LoadedBank
from costbank.errors import UsageError
from costbank.vocab import TokenMatch
from costbank_service.answers import (
    Entries,
    check_k,
    json_response,
    match_text,
    nearest_answer,
    search_entries,
    table_entries,
    text_is_too_long,
    token_facts,
)  # fmt: skip
from costbank_service.bank_cache import BankCache
from costbank_service.bodies import body_of, documented_body
from costbank_service.direct import DirectRoute, documented
from costbank_service.examples import BATCH_EXAMPLE, NEAREST_EXAMPLE
from costbank_service.problems import problem_responses
from costbank_service.query_string import QueryParameter, parse_query
from costbank_service.schemas import BatchAnswer, NearestAnswer, NearestBody
from costbank_service.settings import Settings

__all__ = ["NEAREST", "nearest_of", "nearest_tokens", "one_of", "router"]

NEAREST = (
    QueryParameter("token", "string", "a word (king), piece:ing, id:123 or hex:e4bda0; its bytes need not be UTF-8"),
    QueryParameter("token_id", "integer", "the id of the token, instead of `token`", minimum=0, example=877),
    QueryParameter("k", "integer", "number of neighbors", default=10, minimum=1),
)

router = APIRouter(prefix="/v1/banks", tags=["banks"], responses=problem_responses(400), route_class=DirectRoute)


@router.get(
    "/{ref}/nearest", response_model=NearestAnswer, openapi_extra=documented(NEAREST),
    responses={200: NEAREST_EXAMPLE, **problem_responses(404, 500, 503)},
)  # fmt: skip
async def nearest(request: Request) -> Response:
    """List the k tokens with the lowest cost to a token, in ascending order.

    A k beyond the bank's neighbor table needs a search; 503 if too many searches are waiting.
    """
    query = parse_query(request.scope["query_string"], NEAREST)
    return json_response(await nearest_tokens(request, request.path_params["ref"], query))


async def nearest_tokens(request: Request, reference: str, query: dict[str, Any]) -> dict[str, Any]:
    """The answer to a query for `NEAREST`. One that the table in memory has takes no thread and reads no file.

    Raises:
        UsageError, BankNotFoundError, TokenNotFoundError, CorruptBankError, OverloadedError: see the routes.
    """
    state = request.app.state
    token, token_id, k = query["token"], query["token_id"], query["k"]
    one_of(query)
    check_k(k, state.settings.max_k)
    bank = state.banks.recent(reference) or await state.banks.opened(reference)
    match = TokenMatch(bank.vocab.check(token_id)) if token is None else await _match(bank, token)
    entries, exact = await nearest_of(request, bank, match.id, k)
    return nearest_answer(bank, match, entries, exact)


def one_of(query: dict[str, Any]) -> None:
    """Check that a query has either `token` or `token_id`."""
    if (query["token"] is None) == (query["token_id"] is None):
        neither = query["token"] is None
        wrong = "neither token nor token_id is given" if neither else "both token and token_id are given"
        raise UsageError(wrong, "use either ?token=king or ?token_id=123")


async def nearest_of(request: Request, bank: LoadedBank, token: int, k: int) -> tuple[Entries, bool]:
    """The neighbors of a token, from the table or by a search, and whether they are certain to be the nearest."""
    entries = table_entries(bank, token, k)
    if entries is not None:
        return entries, bank.manifest.neighbors.exact
    state = request.app.state
    answer = await state.searches.run(lambda: state.banks.search(bank, token, k))
    return search_entries(answer), answer.exact


@router.post(
    "/{ref}/nearest", response_model=BatchAnswer, name="nearest_of_many",
    openapi_extra=documented((), **documented_body(
        NearestBody, {"token_ids": [877, 1129], "k": 2}, {"vectors": [[0.5, -0.5, 0.5, 0.5]], "k": 2})),
    responses={200: BATCH_EXAMPLE, **problem_responses(404, 413, 415, 422, 500, 503)},
)  # fmt: skip
async def nearest_of_many(request: Request) -> Response:
    """List the k nearest tokens of each of several tokens, or of each of several vectors.

    Vectors are normalized first. They need a search, as does a k beyond the bank's neighbor table.
    """
    parse_query(request.scope["query_string"], ())
    body, state = await body_of(request, NearestBody), request.app.state
    check_k(body.k, state.settings.max_k)
    reference = request.path_params["ref"]
    bank = state.banks.recent(reference) or await state.banks.opened(reference)
    number = len(body.token_ids if body.token_ids is not None else body.vectors or ())
    _check_batch(number, body.k, state.settings)
    if body.token_ids is not None:
        for token in body.token_ids:
            bank.vocab.check(token)
        if body.k > bank.neighbors.k:
            results = await state.searches.run(lambda: _searched(state.banks, bank, body.token_ids or [], body.k))
        else:
            results = await run_in_threadpool(_from_table, bank, body.token_ids, body.k)
    else:
        results = await state.searches.run(lambda: _of_vectors(state.banks, bank, body.vectors or [], body.k))
    return json_response({"bank": bank.name, "id": bank.id, "results": results})


def _from_table(bank: LoadedBank, tokens: list[int], k: int) -> list[dict[str, Any]]:
    exact = bank.manifest.neighbors.exact
    return [
        {"token": token_facts(bank, token), "exact": exact, "neighbors": table_entries(bank, token, k)}
        for token in tokens
    ]


def _searched(banks: BankCache, bank: LoadedBank, tokens: list[int], k: int) -> list[dict[str, Any]]:
    results = []
    for token in tokens:
        entries, exact = table_entries(bank, token, k), bank.manifest.neighbors.exact
        if entries is None:
            answer = banks.search(bank, token, k)
            entries, exact = search_entries(answer), answer.exact
        results.append({"token": token_facts(bank, token), "exact": exact, "neighbors": entries})
    return results


def _of_vectors(banks: BankCache, bank: LoadedBank, vectors: list[list[float]], k: int) -> list[dict[str, Any]]:
    wrong = next((len(vector) for vector in vectors if len(vector) != bank.dim), None)
    if wrong is not None:
        raise UsageError(f"a vector has {wrong:,} elements, but this bank has dim {bank.dim:,}",
                         f"give each vector {bank.dim:,} elements")  # fmt: skip
    with np.errstate(over="ignore"):
        array = np.array(vectors, np.float32).reshape(len(vectors), bank.dim)
    if not np.isfinite(array).all():
        raise UsageError("a vector has an element beyond the range of float32", "scale the vectors")
    answers = banks.search_vectors(bank, array, k)
    return [{"token": None, "exact": answer.exact, "neighbors": search_entries(answer)} for answer in answers]


def _check_batch(number: int, k: int, settings: Settings) -> None:
    if number > settings.max_ids:
        raise UsageError(f"the body has {number:,} tokens or vectors, but this service takes {settings.max_ids:,}",
                         "send several requests")  # fmt: skip
    if number * k > settings.max_cells:
        raise UsageError(f"the answer would have {number:,} × {k:,} neighbors, but this service returns "
                         f"{settings.max_cells:,}", "send several requests, or a smaller k")  # fmt: skip


async def _match(bank: LoadedBank, token: str) -> TokenMatch:
    match = None if text_is_too_long(bank, token) else bank.vocab.lookup(token)
    return match or await run_in_threadpool(match_text, bank, token)
