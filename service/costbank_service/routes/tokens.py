"""Routes for the tokens of a bank."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from costbank.bank import LoadedBank
from costbank.bank.card import example_tokens
from costbank.errors import UsageError
from costbank_service.answers import json_response, table_entries, token_entry, token_facts
from costbank_service.bank_cache import BankCache
from costbank_service.cursors import cursor_of, position_of
from costbank_service.dependencies import banks_of
from costbank_service.examples import EXAMPLES_EXAMPLE, TOKEN_EXAMPLE, TOKENS_EXAMPLE
from costbank_service.problems import problem_responses
from costbank_service.query_string import QueryParameter, query_reader
from costbank_service.schemas import ExamplesAnswer, TokenAnswer, TokensAnswer

__all__ = ["router"]

TOKENS = (
    QueryParameter("q", "string", "bytes to search for, case-sensitive; a space at the start is that of a word",
                   example="row"),
    QueryParameter("match", "string", "where the bytes must be", default="prefix", choices=("prefix", "contains")),
    QueryParameter("limit", "integer", "number of tokens per page, by default 100", minimum=1),
    QueryParameter("cursor", "string", "`next` of the page before, with the same q and match"),
)  # fmt: skip
_PAGE = 100
_ID = QueryParameter("token_id", "integer", "the id of the token", minimum=0, example=877)
_ID_PARAMETER = {**_ID.openapi(), "in": "path", "required": True}

router = APIRouter(prefix="/v1/banks", tags=["tokens"], responses=problem_responses(400))

Banks = Annotated[BankCache, Depends(banks_of)]


@router.get(
    "/{ref}/tokens", response_model=TokensAnswer,
    openapi_extra={"parameters": [parameter.openapi() for parameter in TOKENS]},
    responses={200: TOKENS_EXAMPLE, **problem_responses(404, 500)},
)  # fmt: skip
async def search_tokens(
    ref: str, request: Request, banks: Banks, query: Annotated[dict[str, Any], Depends(query_reader(TOKENS))]
) -> Response:
    """List the tokens whose bytes start with `q` or contain it, by id; all tokens without `q`.

    `total` is the number of all matches. Pages continue with `cursor`, which fits one query on one bank's id.
    """
    most = request.app.state.settings.max_ids
    limit = query["limit"] = min(_PAGE, most) if query["limit"] is None else query["limit"]
    if not 1 <= limit <= most:
        raise UsageError(f"limit is {limit}, but this service returns 1 to {most:,} tokens per page",
                         f"choose a limit from 1 to {most:,}")  # fmt: skip
    bank = banks.recent(ref) or await banks.opened(ref)
    return json_response(await run_in_threadpool(_page, bank, query))


@router.get(
    "/{ref}/tokens/{token_id}", response_model=TokenAnswer, dependencies=[Depends(query_reader(()))],
    openapi_extra={"parameters": [_ID_PARAMETER]},
    responses={200: TOKEN_EXAMPLE, **problem_responses(404, 500)},
)  # fmt: skip
async def show_token(ref: str, request: Request, banks: Banks) -> Response:
    """Show a token: its text, bytes, status and count, and whether it has a vector."""
    number = _ID.read(request.path_params["token_id"].encode("utf-8"))
    bank = banks.recent(ref) or await banks.opened(ref)
    token = bank.vocab.check(int(str(number)))
    entry = {**token_entry(bank, token), "has_vector": bool(bank.usable[token])}
    return json_response({"bank": bank.name, "id": bank.id, "token": entry})


@router.get(
    "/{ref}/examples", response_model=ExamplesAnswer, dependencies=[Depends(query_reader(()))],
    responses={200: EXAMPLES_EXAMPLE, **problem_responses(404, 500)},
)  # fmt: skip
async def show_examples(ref: str, banks: Banks) -> Response:
    """List frequent words with their nearest tokens, for a first look at the bank."""
    bank = banks.recent(ref) or await banks.opened(ref)
    examples = [
        {"token": token_facts(bank, token), "neighbors": table_entries(bank, token, len(nearest))}
        for token, nearest in await run_in_threadpool(example_tokens, bank.vocab, bank.neighbors)
    ]
    return json_response({"bank": bank.name, "id": bank.id, "examples": examples})


def _page(bank: LoadedBank, query: dict[str, Any]) -> dict[str, Any]:
    text = query["q"] or ""
    wanted = text.encode("utf-8", "surrogateescape")
    identity = bank.id, query["match"], wanted
    after = position_of(query["cursor"], *identity) if query["cursor"] else -1
    matches = bank.vocab.containing(wanted) if query["match"] == "contains" else bank.vocab.starting_with(wanted)
    start = int(np.searchsorted(matches, after, "right"))
    page = matches[start : start + query["limit"]].tolist()
    is_last = start + len(page) == len(matches)
    return {
        "bank": bank.name, "id": bank.id, "total": len(matches), "tokens": [token_entry(bank, token) for token in page],
        "next": None if is_last else cursor_of(page[-1], *identity),
    }  # fmt: skip
