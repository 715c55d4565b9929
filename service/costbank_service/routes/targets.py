"""The route for the softened targets of labels."""

from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from costbank.bank import LoadedBank
from costbank.errors import UsageError
from costbank_service.answers import check_k, json_response
from costbank_service.direct import DirectRoute, documented
from costbank_service.examples import TARGETS_EXAMPLE
from costbank_service.label_targets import LabelTargets, longest_matches
from costbank_service.problems import problem_responses
from costbank_service.query_string import QueryParameter, parse_query
from costbank_service.schemas import TargetsAnswer

__all__ = ["router"]

_MOST_LABELS = 64
TARGETS = (
    QueryParameter("text", "string", "a text; it is split into the longest tokens"),
    QueryParameter("token_ids", "integers", "ids of labels, separated by commas, instead of `text`", example="877"),
    QueryParameter("k", "integer", "number of other tokens per label", default=10, minimum=1),
)

router = APIRouter(prefix="/v1/banks", tags=["numbers"], responses=problem_responses(400), route_class=DirectRoute)


@router.get(
    "/{ref}/targets", response_model=TargetsAnswer, openapi_extra=documented(TARGETS),
    responses={200: TARGETS_EXAMPLE, **problem_responses(404, 500, 501, 503)},
)  # fmt: skip
async def targets(request: Request) -> Response:
    """Show the targets that `EMOLoss(bank)` gives to labels: the label's share and the largest of other tokens.

    The first request for a bank chooses the temperature, which takes memory for all its vectors. The service needs
    PyTorch for it; 501 without.
    """
    query, state = parse_query(request.scope["query_string"], TARGETS), request.app.state
    if (query["text"] is None) == (query["token_ids"] is None):
        neither = query["text"] is None
        wrong = "neither text nor token_ids is given" if neither else "both text and token_ids are given"
        raise UsageError(wrong, "use either ?text=… or ?token_ids=123,456")
    check_k(query["k"], state.settings.max_k)
    reference = request.path_params["ref"]
    bank = state.banks.recent(reference) or await state.banks.opened(reference)
    if query["text"] is not None:
        split = "longest-match"
        ids, unmatched = await state.searches.run(lambda: longest_matches(bank, query["text"], _MOST_LABELS))
    else:
        split, ids, unmatched = "given", [bank.vocab.check(token) for token in query["token_ids"]], b""
        if len(ids) > _MOST_LABELS:
            raise UsageError(f"token_ids has {len(ids):,} ids, but this route takes {_MOST_LABELS}",
                             "send several requests")  # fmt: skip
    chosen = await state.targets.of(bank)
    entries = await state.searches.run(lambda: _entries(bank, chosen, list(dict.fromkeys(ids)), query["k"]))
    return json_response({
        "bank": bank.name, "id": bank.id, "split": split, "unmatched": unmatched.hex(), "loss": chosen.loss,
        "weight": chosen.weight, "temperature": chosen.temperature, "targets": [entries[token] for token in ids],
    })  # fmt: skip


def _entries(bank: LoadedBank, chosen: LabelTargets, labels: list[int], k: int) -> dict[int, dict[str, Any]]:
    """The targets by label, after one pass over the vectors."""
    costs = bank.cost_matrix(labels, np.arange(bank.size))
    return {label: chosen.entry(bank, label, row, k) for label, row in zip(labels, costs, strict=True)}
