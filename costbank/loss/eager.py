"""A loss inside a compiled function: it is left out of the graph, and runs as it is written."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import torch

__all__ = ["eager"]

Function = TypeVar("Function", bound=Callable)


def eager(function: Function) -> Function:
    """Have torch.compile break its graph around a function.

    As `torch.compiler.disable`, but that loads the compiler when a module is imported, which takes as long as torch.
    """

    @wraps(function)
    def called(*args, **kwargs):
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return called  # pyright: ignore[reportReturnType]
