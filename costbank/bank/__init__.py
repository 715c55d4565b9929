"""Banks: written once, verified, and read by memory map. README.md next to this file describes the format."""

from costbank.bank.loaded import LoadedBank, NearestTokens
from costbank.bank.reader import Bank, Neighbor, RawRows, open_bank, shortest
from costbank.bank.store import NAME_PATTERN, Store, StoredBank, default_store
from costbank.bank.verify import FileCheck, check_digests, verify_bank
from costbank.bank.writer import STEPS, BankWriter

__all__ = [
    "NAME_PATTERN",
    "STEPS",
    "Bank",
    "BankWriter",
    "FileCheck",
    "LoadedBank",
    "NearestTokens",
    "Neighbor",
    "RawRows",
    "Store",
    "StoredBank",
    "check_digests",
    "default_store",
    "open_bank",
    "shortest",
    "verify_bank",
]
