"""The application: its routes, error handlers and OpenAPI document, and the layer around them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

import costbank
from costbank_service.bank_cache import BankCache
from costbank_service.gateway import Gateway
from costbank_service.keys import KeyRing
from costbank_service.label_targets import TargetCache
from costbank_service.metrics import Metrics
from costbank_service.problems import Problem, add_problem_handlers, problem_responses
from costbank_service.routes import banks, compare, costs, files, maps, nearest, status, targets, tokens, web
from costbank_service.schemas import CostsBody, NearestBody
from costbank_service.search_pool import SearchPool
from costbank_service.settings import Settings

__all__ = ["create_app"]

_ABOUT = """Read-only. Every GET route also answers HEAD, and one trailing slash in a path is ignored. Query strings are
form-encoded: `+` is a space, and bytes that are not valid UTF-8 are kept. Unknown and repeated query parameters are
errors, except for the routes outside `/v1`. Errors are problem details (RFC 9457) with a stable `code`. Every answer
has the header `X-Request-Id`: that of the request, or a new one."""

_KEY = {
    "type": "http", "scheme": "bearer",
    "description": "A key of the service, in the header `Authorization: Bearer <key>`.",
}  # fmt: skip
_LEAST_PAUSE = 0.05

logger = logging.getLogger("costbank.service")


class _Application(FastAPI):
    """FastAPI inside a gateway, which also sees the answers to unexpected errors."""

    gateway: Gateway

    def build_middleware_stack(self) -> ASGIApp:
        settings, keys = self.state.settings, self.state.keys
        self.gateway = Gateway(super().build_middleware_stack(), self, settings, keys, self.state.metrics)
        origins = [origin.strip() for origin in settings.allowed_origins.split(",") if origin.strip()]
        if not origins:
            return self.gateway
        return CORSMiddleware(
            self.gateway, origins, allow_methods=["GET", "HEAD", "POST"], allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After", "ETag"],
        )  # fmt: skip


def create_app(settings: Settings) -> FastAPI:
    """An ASGI application that serves the banks of `settings.store`. It writes nothing.

    Raises:
        UsageError: the file of keys cannot be used.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        upkeep = asyncio.create_task(_upkeep(app))
        yield
        upkeep.cancel()
        with suppress(asyncio.CancelledError):
            await upkeep
        app.state.searches.close()
        app.state.targets.close()

    app = _Application(
        lifespan=lifespan,
        title="costbank",
        version=costbank.__version__,
        summary="Frozen token cost embeddings: banks and their nearest tokens",
        docs_url=None,  # both pages would load scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,  # a redirect would contain the client's Host header
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.state.keys = KeyRing(settings)
    app.state.metrics = Metrics()
    app.state.set_gauges = lambda: _set_gauges(app)
    app.state.searches = SearchPool(settings.search_threads, settings.search_queue)
    app.state.targets = TargetCache(settings.max_memory_mb << 20)
    app.state.banks = BankCache(settings.store, settings.max_memory_mb << 20, settings.refresh_ms / 1e3)
    app.router.routes[:0] = nearest.router.routes  # first, and not nested: the route that most requests ask for
    for routes in (status, banks, files, tokens, costs, maps, targets, compare, web):
        app.include_router(routes.router)
    add_problem_handlers(app)
    app.openapi = lambda: _document(app)
    return app


async def _upkeep(app: _Application) -> None:
    """Read keys again when they change, and keep the gauges up to date."""
    while True:
        try:
            await run_in_threadpool(app.state.keys.reload)
            _set_gauges(app)
        except Exception:
            logger.exception("the service cannot read its keys again or count its banks")
        await asyncio.sleep(max(_LEAST_PAUSE, app.state.settings.refresh_ms / 1e3))


def _set_gauges(app: _Application) -> None:
    state = app.state
    banks, size = state.banks.resident
    state.metrics.set(
        requests_running=app.gateway.running, resident_banks=banks, resident_bytes=size,
        searches_running=state.searches.running, searches_waiting=state.searches.waiting,
    )  # fmt: skip


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the schema of problems, to which every operation refers, and the key, if any."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=_ABOUT, routes=app.routes
        )
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(
            {model.__name__: model.model_json_schema() for model in (Problem, CostsBody, NearestBody)}
        )
        if app.state.keys.required:
            components["securitySchemes"] = {"key": _KEY}
            versioned = [operations for path, operations in document["paths"].items() if path.startswith("/v1/")]
            for operation in (operation for operations in versioned for operation in operations.values()):
                operation["security"] = [{"key": []}]
                operation["responses"]["401"] = problem_responses(401)[401]
        app.openapi_schema = document
    return app.openapi_schema
