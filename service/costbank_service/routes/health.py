"""Whether the service lives, and whether it can do its work."""

import os
from typing import Annotated

from fastapi import APIRouter, Depends

from costbank_service.dependencies import registry_of
from costbank_service.problems import StoreUnavailableError, problem_responses
from costbank_service.registry import Registry
from costbank_service.schemas import ServiceStatus

__all__ = ["router"]

router = APIRouter(tags=["health"], responses=problem_responses())


@router.get("/livez")
async def livez() -> ServiceStatus:
    """The process answers."""
    return ServiceStatus(status="ok")


@router.get("/readyz", responses=problem_responses(503))
def readyz(registry: Annotated[Registry, Depends(registry_of)]) -> ServiceStatus:
    """The store can be read; 503 while it cannot."""
    if not os.access(registry.store.root, os.R_OK | os.X_OK):
        raise StoreUnavailableError("the store does not exist or cannot be read", "make it, or correct its permissions")
    return ServiceStatus(status="ok")
