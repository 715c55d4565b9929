"""The application: its routes, middleware, error handlers and OpenAPI document."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Security
from fastapi.openapi.utils import get_openapi

import costbank
from costbank_service.bank_cache import BankCache
from costbank_service.dependencies import authorize, bearer
from costbank_service.middleware import HeadMiddleware, PathMiddleware
from costbank_service.problems import Problem, add_problem_handlers, problem_responses
from costbank_service.routes import banks, files, status
from costbank_service.search_pool import SearchPool
from costbank_service.settings import Settings

__all__ = ["create_app"]

_ABOUT = """Read-only. Every GET route also answers HEAD, and one trailing slash in a path is ignored. Query strings are
form-encoded: `+` is a space, and bytes that are not valid UTF-8 are kept. Unknown and repeated query parameters are
errors, except for `/livez`, `/readyz` and `/openapi.json`. Errors are problem details (RFC 9457) with a stable
`code`."""


def create_app(settings: Settings) -> FastAPI:
    """An ASGI application that serves the banks of `settings.store`. It writes nothing."""
    searches = SearchPool(settings.search_threads, settings.search_queue)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        searches.close()

    app = FastAPI(
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
    app.state.searches = searches
    app.state.banks = BankCache(settings.store, settings.max_memory_mb << 20)
    app.include_router(status.router)
    for router in (banks.router, files.router):
        if settings.api_key is None:
            app.include_router(router)
        else:
            app.include_router(
                router, dependencies=[Security(bearer), Depends(authorize)], responses=problem_responses(401)
            )
    add_problem_handlers(app)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(PathMiddleware)
    app.openapi = lambda: _document(app)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the schema of problems, to which every operation refers."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=_ABOUT, routes=app.routes
        )
        document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        app.openapi_schema = document
    return app.openapi_schema
