"""The application: routes over a registry of banks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Security
from fastapi.openapi.utils import get_openapi

import costbank
from costbank_service.dependencies import authorize, bearer
from costbank_service.middleware import HeadMiddleware, PathMiddleware
from costbank_service.problems import Problem, add_problem_handlers, problem_responses
from costbank_service.registry import Registry
from costbank_service.routes import banks, health
from costbank_service.searches import SearchPool
from costbank_service.settings import Settings

__all__ = ["create_app"]

_ABOUT = """Read-only. HEAD works wherever GET does, and one slash at the end of a path is ignored. Query strings are
form-encoded: `+` is a space, and bytes that are not UTF-8 mean those bytes. Unknown and repeated query parameters are
errors, but for `/livez`, `/readyz` and `/openapi.json`. Errors are problems (RFC 9457) with a stable `code`."""


def create_app(settings: Settings) -> FastAPI:
    """An ASGI application that answers for the banks of `settings.store`. It writes nothing."""
    searches = SearchPool(settings.search_threads, settings.search_queue)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        searches.close()

    app = FastAPI(
        lifespan=lifespan,
        title="costbank",
        version=costbank.__version__,
        summary="Frozen token cost embeddings: banks and their nearest-cost tokens",
        docs_url=None,  # both pages would fetch their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from the client's Host header
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.state.searches = searches
    app.state.registry = Registry(settings.store, settings.max_memory_mb << 20)
    app.include_router(health.router)
    if settings.api_key is None:
        app.include_router(banks.router)
    else:
        app.include_router(
            banks.router, dependencies=[Security(bearer), Depends(authorize)], responses=problem_responses(401)
        )
    add_problem_handlers(app)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(PathMiddleware)
    app.openapi = lambda: _document(app)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the schema of problems, which every operation refers to."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=_ABOUT, routes=app.routes
        )
        document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        app.openapi_schema = document
    return app.openapi_schema
