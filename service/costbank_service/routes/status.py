"""Routes for liveness, readiness and metrics."""

import os
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from costbank_service.bank_cache import BankCache
from costbank_service.dependencies import banks_of
from costbank_service.metrics import METRICS_TYPE
from costbank_service.page import html_page
from costbank_service.problems import StoreUnavailableError, problem_responses
from costbank_service.schemas import QuarantinedBank, Readiness, ServiceStatus

__all__ = ["router"]

_METRICS = {METRICS_TYPE: {"schema": {"type": "string"}}}

router = APIRouter(tags=["health"], responses=problem_responses())


@router.get("/livez")
async def livez() -> ServiceStatus:
    """The process is running."""
    return ServiceStatus(status="ok")


@router.get("/readyz", responses=problem_responses(503))
def readyz(banks: Annotated[BankCache, Depends(banks_of)]) -> Readiness:
    """The store can be read; 503 if it cannot. Damaged banks are `quarantined`: all others are served."""
    if not os.access(banks.store.root, os.R_OK | os.X_OK):
        raise StoreUnavailableError(
            "the store does not exist or cannot be read", "create it, or correct its permissions"
        )
    quarantined = [
        QuarantinedBank(name=bank.name, id=bank.id, problem=problem) for bank, problem in banks.quarantined()
    ]
    return Readiness(status="ok", quarantined=quarantined)


@router.get("/metrics", response_class=Response, responses={200: {"description": "Metrics", "content": _METRICS}})
def metrics(request: Request) -> Response:
    """Metrics in the text format of Prometheus; with several workers, their sums."""
    request.app.state.set_gauges()
    return Response(request.app.state.metrics.text(), media_type=METRICS_TYPE)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The OpenAPI document as a page that loads nothing from other hosts."""
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(html_page(request.app.openapi()), media_type="text/html", headers=policy)
