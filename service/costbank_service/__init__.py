"""The read-only HTTP service of a store of banks.

Importing this package does not import FastAPI; each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from costbank.errors import require

if TYPE_CHECKING:
    from costbank_service.app import create_app
    from costbank_service.server import run, serving
    from costbank_service.settings import Settings, load_settings

__all__ = ["Settings", "create_app", "load_settings", "run", "serving"]

_HOMES = {
    "Settings": "settings",
    "create_app": "app",
    "load_settings": "settings",
    "run": "server",
    "serving": "server",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'costbank_service' has no attribute {name!r}")
    for library in ("fastapi", "uvicorn", "pydantic_settings", "orjson"):
        require(library, "serve")
    return getattr(import_module(f"costbank_service.{_HOMES[name]}"), name)
