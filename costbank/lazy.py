"""Packages that import the module of a name when the name is first used."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, /, **names: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: the package's `__name__`.
        names: for each module of the package, the names that it defines, separated by spaces.
    """
    modules = {name: module for module, defined in names.items() for name in defined.split()}

    def import_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    def list_names() -> list[str]:
        hidden = {"TYPE_CHECKING", "lazy_names"}
        return sorted({*vars(sys.modules[package]), *modules} - hidden)

    return import_name, list_names
