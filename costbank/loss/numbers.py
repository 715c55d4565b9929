"""Numbers of loss modules, by which a compiled graph finds them."""

from itertools import count
from typing import Any
from weakref import WeakValueDictionary

__all__ = ["module_of", "number_of"]

_MODULES: WeakValueDictionary[int, Any] = WeakValueDictionary()
_NEXT = count()


def number_of(module: Any) -> int:
    """A new number for a module."""
    number = next(_NEXT)
    _MODULES[number] = module
    return number


def module_of(number: int) -> Any:
    """The module with a number."""
    return _MODULES[number]
