"""Banks: write once, verify, and read by memory map. The format is described in README.md next to this file."""

from costbank.bank.loaded import LoadedBank, NearestTokens
from costbank.bank.reader import Bank, Neighbor, RawRows, open_bank, shortest
from costbank.bank.store import NAME_PATTERN, BankPlace, Store, default_store
from costbank.bank.verify import FileCheck, check_digests, verify_bank
from costbank.bank.writer import STEPS, BankWriter

__all__ = [
    "NAME_PATTERN",
    "STEPS",
    "Bank",
    "BankPlace",
    "BankWriter",
    "FileCheck",
    "LoadedBank",
    "NearestTokens",
    "Neighbor",
    "RawRows",
    "Store",
    "check_digests",
    "default_store",
    "open_bank",
    "shortest",
    "verify_bank",
]
