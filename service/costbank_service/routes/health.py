"""Whether the service lives, and whether it can do its work."""

import os
from typing import Annotated

from fastapi import APIRouter, Depends

from costbank.errors import StorageError
from costbank_service.dependencies import registry_of
from costbank_service.registry import Registry
from costbank_service.schemas import Health

__all__ = ["router"]

router = APIRouter(tags=["health"])


class StoreUnavailableError(StorageError):
    code = "store-unavailable"
    title = "The store cannot be read"
    http_status = 503


@router.get("/livez")
async def livez() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz")
def readyz(registry: Annotated[Registry, Depends(registry_of)]) -> Health:
    """The store can be read; 503 while it cannot."""
    if not os.access(registry.store.root, os.R_OK | os.X_OK):
        raise StoreUnavailableError(f"the store {registry.store.root} cannot be read", "make it, or mend its rights")
    return Health(status="ok")
