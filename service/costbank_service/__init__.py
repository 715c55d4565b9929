"""The read-only HTTP service of a store of banks.

Importing this package does not import FastAPI; each name below is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

from costbank.errors import require
from costbank.lazy import lazy_names

if TYPE_CHECKING:
    from costbank_service.app import create_app
    from costbank_service.server import run, serving
    from costbank_service.settings import Settings, load_settings

__all__ = ["Settings", "create_app", "load_settings", "run", "serving"]

if not TYPE_CHECKING:  # A type checker would accept any name.
    _import_name, __dir__ = lazy_names(
        __name__,
        settings="Settings load_settings",
        app="create_app",
        server="run serving",
    )

    def __getattr__(name: str) -> Any:
        if name in __all__:
            for library in ("fastapi", "uvicorn", "pydantic_settings", "orjson", "prometheus_client"):
                require(library, "serve")
        return _import_name(name)
