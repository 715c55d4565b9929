"""Banks, and their nearest-cost tokens."""

from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Response

from costbank.errors import CostbankError, UsageError
from costbank_service.dependencies import authorize, registry_of, settings_of
from costbank_service.problems import Problem
from costbank_service.registry import Registry
from costbank_service.schemas import BankDetails, BankSummary, NearestAnswer
from costbank_service.settings import Settings

__all__ = ["router"]

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"content": {"application/problem+json": {"schema": Problem.model_json_schema()}}, "description": text}
    for status, text in ((400, "Malformed request"), (401, "No key"), (404, "No such bank or token"))
}

router = APIRouter(prefix="/v1/banks", tags=["banks"], dependencies=[Depends(authorize)], responses=_PROBLEMS)

OpenRegistry = Annotated[Registry, Depends(registry_of)]


@router.get("", response_model=list[BankSummary])
def list_banks(registry: OpenRegistry) -> Response:
    """Every bank of the store; a damaged one is listed with its problem."""
    listed = []
    for place in registry.store.banks():
        entry: dict[str, Any] = {"name": place.name, "id": place.id, "latest": place.latest, "problem": None}
        try:
            manifest = registry.at(place.path).manifest
        except CostbankError as error:
            entry["problem"] = error.title
        else:
            entry |= {"source": manifest.source, "vocab": manifest.vectors.vocab, "dim": manifest.vectors.dim}
            entry["created"] = manifest.created
        listed.append(entry)
    return _json(listed)


@router.get("/{ref}", response_model=BankDetails)
def show_bank(ref: str, registry: OpenRegistry) -> Response:
    """What a bank holds and where it came from. A name means its latest bank, and the answer has the id."""
    bank = registry.bank(ref)
    return _json({"name": bank.name, **bank.manifest.model_dump(include=set(BankDetails.model_fields))})


@router.get("/{ref}/nearest", response_model=NearestAnswer)
def nearest(
    ref: str,
    registry: OpenRegistry,
    settings: Annotated[Settings, Depends(settings_of)],
    token: Annotated[str | None, Query(description="text, id:123 or hex:e4bda0", min_length=1)] = None,
    token_id: Annotated[int | None, Query(description="instead of token")] = None,
    k: Annotated[int, Query(description="how many")] = 10,
) -> Response:
    """The k tokens of least cost to a token, by ascending cost."""
    bank = registry.bank(ref)
    if (token is None) == (token_id is None):
        raise UsageError("one of token and token_id is needed", "ask for ?token=king, or for ?token_id=123")
    if k > settings.max_k:
        raise UsageError(f"k is {k}, and this service gives {settings.max_k} at most", f"ask for {settings.max_k}")
    found = bank.vocab.find(token) if token is not None else bank.vocab.check(token_id or 0)
    neighbors = bank.nearest(found, k)
    count = int(bank.vocab.counts[found])
    about = {
        "id": found,
        "text": bank.vocab.display(found),
        "status": bank.vocab.status_of(found).name.lower(),
        "count": count if count >= 0 else None,
    }
    return _json(
        {"bank": bank.name, "id": bank.id, "token": about, "neighbors": [asdict(neighbor) for neighbor in neighbors]}
    )


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
