"""Import a training framework, which no extra of costbank installs."""

from importlib import import_module
from types import ModuleType

from costbank.errors import MissingExtraError

__all__ = ["require_framework"]


def require_framework(module: str, distribution: str) -> ModuleType:
    """Import a module of a framework.

    Raises:
        MissingExtraError: the framework, or a library that it imports, is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs the Python library {error.name!r}, which is not installed",
            f"use this module from {distribution}, in its own environment: pip install {distribution}",
        ) from error
