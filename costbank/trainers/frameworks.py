"""Import a training framework, which no extra of costbank installs."""

from types import ModuleType

from costbank.errors import require

__all__ = ["require_framework"]


def require_framework(module: str, distribution: str) -> ModuleType:
    """Import a module of a framework.

    Raises:
        MissingExtraError: the framework, or a library that it imports, is not installed.
    """
    hint = f"use this module from {distribution}, in its own environment: pip install {distribution}"
    return require(module, "trainers", hint)
