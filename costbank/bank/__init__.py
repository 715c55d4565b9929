"""Banks: written once, verified, and read by memory map. README.md next to this file describes the format."""

from typing import TYPE_CHECKING

from costbank.lazy import lazy_names

if TYPE_CHECKING:
    from costbank.bank.loaded import LoadedBank, NearestTokens
    from costbank.bank.reader import Bank, Neighbor, RawRows, open_bank
    from costbank.bank.removal import Removal, prune_banks, remove_banks, rename_banks
    from costbank.bank.store import NAME_PATTERN, Store, StoredBank, default_store
    from costbank.bank.verify import FileCheck, check_digests, verify_bank
    from costbank.bank.writer import BankWriter

__all__ = [
    "NAME_PATTERN",
    "Bank",
    "BankWriter",
    "FileCheck",
    "LoadedBank",
    "NearestTokens",
    "Neighbor",
    "RawRows",
    "Removal",
    "Store",
    "StoredBank",
    "check_digests",
    "default_store",
    "open_bank",
    "prune_banks",
    "remove_banks",
    "rename_banks",
    "verify_bank",
]

if not TYPE_CHECKING:  # A type checker would accept any name.
    __getattr__, __dir__ = lazy_names(
        __name__,
        store="NAME_PATTERN Store StoredBank default_store",
        reader="Bank Neighbor RawRows open_bank",
        removal="Removal prune_banks remove_banks rename_banks",
        writer="BankWriter",
        verify="FileCheck check_digests verify_bank",
        loaded="LoadedBank NearestTokens",
    )
