"""Frozen token cost embeddings: build them, store them as banks, inspect them, train with them.

Importing this package loads no heavy library; each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costbank.bank import Bank, open_bank
    from costbank.config import BuildConfig, build_config
    from costbank.errors import CostbankError
    from costbank.pipeline import build

__version__ = "0.1.0"
__all__ = ["Bank", "BuildConfig", "CostbankError", "build", "build_config", "open_bank"]

_HOMES = {
    "Bank": "costbank.bank",
    "BuildConfig": "costbank.config",
    "CostbankError": "costbank.errors",
    "build": "costbank.pipeline",
    "build_config": "costbank.config",
    "open_bank": "costbank.bank",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'costbank' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
