"""The route that compares the neighbors of a token in two banks."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from costbank.analysis.overlap import overlap, rank_biased_overlap
from costbank.bank import LoadedBank
from costbank.errors import TokenNotFoundError
from costbank.vocab import TokenMatch
from costbank_service.answers import check_k, json_response, match_text, nearest_answer
from costbank_service.direct import DirectRoute
from costbank_service.examples import COMPARE_EXAMPLE
from costbank_service.problems import problem_responses
from costbank_service.query_string import QueryParameter, parse_query
from costbank_service.routes.nearest import nearest_of, one_of
from costbank_service.schemas import CompareAnswer

__all__ = ["router"]

COMPARE = (
    QueryParameter("a", "string", "a bank: `name`, or `name@idprefix`", required=True, example="demo"),
    QueryParameter("b", "string", "the other bank", required=True, example="other"),
    QueryParameter("token", "string", "a token of bank a, as in /nearest"),
    QueryParameter("token_id", "integer", "the id of the token in bank a, instead of `token`", minimum=0, example=877),
    QueryParameter("k", "integer", "number of neighbors", default=10, minimum=1),
)

router = APIRouter(prefix="/v1", tags=["banks"], responses=problem_responses(400), route_class=DirectRoute)


@router.get(
    "/compare", response_model=CompareAnswer,
    openapi_extra={"parameters": [parameter.openapi() for parameter in COMPARE]},
    responses={200: COMPARE_EXAMPLE, **problem_responses(404, 500, 503)},
)  # fmt: skip
async def compare(request: Request) -> Response:
    """List the neighbors of a token in two banks, and how far they agree.

    `overlap` is the share of neighbors in both lists; `rank_biased_overlap` weighs the first ranks more (Webber et al.
    2010, p = 0.9, extrapolated). Tokens of banks with different tokenizers are matched by their bytes.
    """
    query, state = parse_query(request.scope["query_string"], COMPARE), request.app.state
    one_of(query)
    check_k(query["k"], state.settings.max_k)
    first, second = [state.banks.recent(query[name]) or await state.banks.opened(query[name]) for name in "ab"]
    if query["token"] is not None:
        match = await run_in_threadpool(match_text, first, query["token"])
    else:
        match = TokenMatch(first.vocab.check(query["token_id"]))
    same = first.size == second.size and _fingerprint(first) == _fingerprint(second)
    other = match.id if same else await run_in_threadpool(_counterpart, first, match.id, second)
    answers, keys = [], []
    for bank, found in ((first, match), (second, TokenMatch(other))):
        entries, exact = await nearest_of(request, bank, found.id, query["k"])
        answers.append(nearest_answer(bank, found, entries, exact))
        keys.append([entry["id"] if same else bank.vocab.token(entry["id"]) for entry in entries])
    return json_response(
        {
            "a": answers[0], "b": answers[1], "same_tokenizer": same, "overlap": overlap(*keys),
            "rank_biased_overlap": rank_biased_overlap(*keys),
        }
    )  # fmt: skip


def _fingerprint(bank: LoadedBank) -> str:
    return bank.manifest.tokenizer.fingerprint


def _counterpart(first: LoadedBank, token: int, second: LoadedBank) -> int:
    data = first.vocab.token(token)
    ids = second.vocab.ids_of(data)
    if not ids:
        raise TokenNotFoundError(
            f"{second.name} has no token with the bytes of {first.vocab.display(token)}",
            f"/v1/banks/{second.name}/tokens?q=… searches its tokens",
        )
    return ids[0]
