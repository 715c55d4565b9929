"""Numbers of loss modules, by which a compiled graph finds them. They hold within one process."""

from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from costbank.errors import UsageError

__all__ = ["module_of", "number_of"]

_MODULES: WeakValueDictionary[int, Any] = WeakValueDictionary()
_NEXT = count()


def number_of(module: Any) -> int:
    """A new number for a module."""
    number = next(_NEXT)
    _MODULES[number] = module
    return number


def module_of(number: int) -> Any:
    """The module with a number.

    Raises:
        UsageError: it was deleted, or its graph comes from another process.
    """
    module = _MODULES.get(number)
    if module is None:
        raise UsageError(
            "a compiled graph calls a loss that no longer exists",
            "keep the loss as long as the compiled function; graphs with a loss cannot be saved for another process",
        )
    return module
