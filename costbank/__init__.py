"""Frozen token cost embeddings: build them, store them as banks, inspect them, train with them.

Importing this package loads no heavy library; each name below is imported when it is first used.
"""

from typing import TYPE_CHECKING

from costbank.lazy import lazy_names

if TYPE_CHECKING:
    from costbank.bank import Bank
    from costbank.config import BuildConfig, build_config
    from costbank.errors import CostbankError
    from costbank.opening import open_bank
    from costbank.pipeline import build

__version__ = "0.1.0"
__all__ = ["Bank", "BuildConfig", "CostbankError", "build", "build_config", "open_bank"]

if not TYPE_CHECKING:  # A type checker would accept any name.
    __getattr__, __dir__ = lazy_names(
        __name__,
        bank="Bank",
        config="BuildConfig build_config",
        errors="CostbankError",
        opening="open_bank",
        pipeline="build",
    )
