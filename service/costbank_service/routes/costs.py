"""Routes for costs and vectors, as JSON or as NumPy arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from costbank.bank import LoadedBank
from costbank.errors import UsageError
from costbank_service.bodies import body_of, documented_body
from costbank_service.content import NPY_CONTENT, array_response, chosen
from costbank_service.direct import DirectRoute, documented
from costbank_service.examples import COSTS_EXAMPLE, VECTORS_EXAMPLE
from costbank_service.problems import problem_responses
from costbank_service.query_string import QueryParameter, parse_query
from costbank_service.schemas import CostsAnswer, CostsBody, VectorsAnswer

__all__ = ["router"]

COSTS = (
    QueryParameter("rows", "integers", "ids of tokens, separated by commas", required=True, example="877,1129"),
    QueryParameter("cols", "integers", "ids of tokens, separated by commas; by default all tokens", example="877,2580"),
)
VECTORS = (QueryParameter("ids", "integers", "ids of tokens, separated by commas", required=True, example="877"),)
_PROBLEMS = problem_responses(404, 406, 500, 503)

router = APIRouter(prefix="/v1/banks", tags=["numbers"], responses=problem_responses(400), route_class=DirectRoute)


def _both(example: dict[str, Any]) -> dict[str, Any]:
    return {"content": {**example["content"], **NPY_CONTENT}}


@router.get(
    "/{ref}/costs", response_model=CostsAnswer, openapi_extra=documented(COSTS),
    responses={200: _both(COSTS_EXAMPLE), **_PROBLEMS},
)  # fmt: skip
async def costs(request: Request) -> Response:
    """Compute the cost of every token of `rows` to every token of `cols`. As `application/x-npy`: the array alone."""
    query = parse_query(request.scope["query_string"], COSTS)
    return await _costs(request, query["rows"], query["cols"])


@router.post(
    "/{ref}/costs", response_model=CostsAnswer, name="costs_of_many",
    openapi_extra=documented((), **documented_body(CostsBody, {"rows": [877, 1129], "cols": [877, 2580]})),
    responses={200: _both(COSTS_EXAMPLE), **_PROBLEMS, **problem_responses(413, 415, 422)},
)  # fmt: skip
async def costs_of_many(request: Request) -> Response:
    """The same as GET, for more ids than a URL can have."""
    parse_query(request.scope["query_string"], ())
    body = await body_of(request, CostsBody)
    return await _costs(request, body.rows, body.cols)


@router.get(
    "/{ref}/vectors", response_model=VectorsAnswer, openapi_extra=documented(VECTORS),
    responses={200: _both(VECTORS_EXAMPLE), **_PROBLEMS},
)  # fmt: skip
async def vectors(request: Request) -> Response:
    """Read the vectors of tokens: unit rows, or zeros for a token without one. As `application/x-npy`: float32."""
    chosen(request)
    ids = parse_query(request.scope["query_string"], VECTORS)["ids"]
    state = request.app.state
    _check_ids(ids, state.settings.max_ids, "ids")
    reference = request.path_params["ref"]
    bank = state.banks.recent(reference) or await state.banks.opened(reference)
    _check_cells(len(ids), bank.dim, state.settings.max_cells)
    rows = await state.searches.run(lambda: bank.vectors(_known(bank, ids)))
    return array_response(request, {"bank": bank.name, "id": bank.id, "ids": ids, "vectors": rows}, rows)


async def _costs(request: Request, rows: list[int], columns: list[int] | None) -> Response:
    chosen(request)
    state = request.app.state
    for name, ids in (("rows", rows), ("cols", columns or ())):
        _check_ids(ids, state.settings.max_ids, name)
    reference = request.path_params["ref"]
    bank = state.banks.recent(reference) or await state.banks.opened(reference)
    _check_cells(len(rows), bank.size if columns is None else len(columns), state.settings.max_cells)
    others = np.arange(bank.size) if columns is None else _known(bank, columns)
    matrix = await state.searches.run(lambda: bank.cost_matrix(_known(bank, rows), others))
    document = {"bank": bank.name, "id": bank.id, "rows": rows, "cols": others, "costs": matrix}
    return array_response(request, document, matrix)


def _known(bank: LoadedBank, ids: Sequence[int]) -> np.ndarray:
    for token in ids:
        bank.vocab.check(token)
    return np.array(ids, np.int64)


def _check_ids(ids: Sequence[int], most: int, name: str) -> None:
    if len(ids) > most:
        raise UsageError(f"{name} has {len(ids):,} ids, but this service takes {most:,}", "send several requests")


def _check_cells(rows: int, columns: int, most: int) -> None:
    if rows * columns > most:
        raise UsageError(
            f"the answer would have {rows:,} × {columns:,} numbers, but this service returns {most:,}",
            "send several requests",
        )
