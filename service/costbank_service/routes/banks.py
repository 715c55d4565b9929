"""Routes for banks."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from costbank.errors import CostbankError
from costbank_service.answers import json_response
from costbank_service.bank_cache import BankCache
from costbank_service.dependencies import banks_of
from costbank_service.problems import problem_responses
from costbank_service.query_string import query_reader
from costbank_service.schemas import BankDetails, BankSummary

__all__ = ["router"]

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
    return json_response(listed)


@router.get("/{ref}", response_model=BankDetails, dependencies=[NoQuery], responses=problem_responses(404, 500))
def show_bank(ref: str, banks: Banks) -> Response:
    """Show what a bank contains and how it was made. A name refers to its latest bank; the answer has the id."""
    name, manifest = banks.manifest(ref)
    return json_response({"name": name, **manifest.model_dump(include=set(BankDetails.model_fields))})
