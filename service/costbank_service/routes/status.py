"""Routes for liveness and readiness."""

import os
from typing import Annotated

from fastapi import APIRouter, Depends

from costbank_service.bank_cache import BankCache
from costbank_service.dependencies import banks_of
from costbank_service.problems import StoreUnavailableError, problem_responses
from costbank_service.schemas import ServiceStatus

__all__ = ["router"]

router = APIRouter(tags=["health"], responses=problem_responses())


@router.get("/livez")
async def livez() -> ServiceStatus:
    """The process is running."""
    return ServiceStatus(status="ok")


@router.get("/readyz", responses=problem_responses(503))
def readyz(banks: Annotated[BankCache, Depends(banks_of)]) -> ServiceStatus:
    """The store can be read; 503 if it cannot."""
    if not os.access(banks.store.root, os.R_OK | os.X_OK):
        raise StoreUnavailableError(
            "the store does not exist or cannot be read", "create it, or correct its permissions"
        )
    return ServiceStatus(status="ok")
