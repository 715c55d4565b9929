"""The route for the two-dimensional map of a bank's tokens."""

import numpy as np
from fastapi import APIRouter, Request, Response
from jaxtyping import Float32

from costbank_service.content import JSON, NPY_CONTENT, array_response, chosen
from costbank_service.direct import DirectRoute, documented
from costbank_service.examples import MAP_EXAMPLE
from costbank_service.problems import ServiceError, problem_responses
from costbank_service.query_string import parse_query
from costbank_service.schemas import MapAnswer

__all__ = ["NoMapError", "router"]

router = APIRouter(prefix="/v1/banks", tags=["numbers"], responses=problem_responses(400), route_class=DirectRoute)


class NoMapError(ServiceError):
    code = "no-map"
    title = "The bank has no map"
    http_status = 404


@router.get(
    "/{ref}/map", response_model=MapAnswer, openapi_extra=documented(()),
    responses={200: {"content": {**MAP_EXAMPLE["content"], **NPY_CONTENT}}, **problem_responses(404, 406, 500, 503)},
)  # fmt: skip
async def token_map(request: Request) -> Response:
    """Read the place of every token on the bank's map, in the order of their ids; null for a token without one."""
    parse_query(request.scope["query_string"], ())
    kind = chosen(request)
    state, reference = request.app.state, request.path_params["ref"]
    bank = state.banks.recent(reference) or await state.banks.opened(reference)
    if not bank.has_map:
        raise NoMapError(f"the bank {bank.name}@{bank.id} has no map", "`costbank layout` adds one to a bank")
    xy = await state.searches.run(bank.map)
    places = await state.searches.run(lambda: _places(xy)) if kind == JSON else []
    return array_response(request, {"bank": bank.name, "id": bank.id, "xy": places}, xy)


def _places(xy: Float32[np.ndarray, "vocab 2"]) -> list[list[float] | None]:
    return [place if known else None for place, known in zip(xy.tolist(), np.isfinite(xy.sum(axis=1)), strict=True)]
