"""The application: routes over a registry of banks."""

from fastapi import FastAPI

import costbank
from costbank_service.middleware import HeadMiddleware
from costbank_service.problems import add_problem_handlers
from costbank_service.registry import Registry
from costbank_service.routes import banks, health
from costbank_service.settings import Settings

__all__ = ["create_app"]


def create_app(settings: Settings) -> FastAPI:
    """An ASGI application that answers for the banks of `settings.store`. It writes nothing."""
    app = FastAPI(
        title="costbank",
        version=costbank.__version__,
        summary="Frozen token cost embeddings: banks and their nearest-cost tokens",
        docs_url=None,  # both pages would fetch their scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.state.registry = Registry(settings.store)
    app.include_router(health.router)
    app.include_router(banks.router)
    add_problem_handlers(app)
    app.add_middleware(HeadMiddleware)
    return app
