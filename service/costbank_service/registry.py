"""The banks that the service has open: each opened once, found by the references of the URL."""

import re
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from costbank.bank import NAME_PATTERN, Bank, Store
from costbank.errors import BankNotFoundError

__all__ = ["Registry"]

_REFERENCE = re.compile(rf"{NAME_PATTERN}(@[0-9a-f]{{4,16}})?")
_MOST_OPEN = 64
_MOST_SHOWN = 80
_MOST_NAMES = 20


class Registry:
    """Opens banks of one store. A name is resolved at each call, so a bank that is built meanwhile is found."""

    def __init__(self, store: Path) -> None:
        self.store = Store(store)
        self._open: OrderedDict[Path, Bank] = OrderedDict()
        self._lock = Lock()

    def bank(self, reference: str) -> Bank:
        """The bank of `name` or `name@idprefix`. A path is no reference here, whatever it points to.

        Raises:
            BankNotFoundError, UsageError, CorruptBankError: as in `open_bank`.
        """
        if not _REFERENCE.fullmatch(reference):
            shown = reference[:_MOST_SHOWN]
            raise BankNotFoundError(f"{shown!r} does not name a bank", "write a name, or name@ and 4 to 16 digits")
        try:
            return self.at(self.store.resolve_name(reference))
        except BankNotFoundError:  # whose words name directories
            raise BankNotFoundError(f"no bank is {reference}", self._names()) from None

    def _names(self) -> str:
        names = sorted({place.name for place in self.store.banks()})
        if not names:
            return "this service has no banks yet"
        more = "; all of them: /v1/banks" if len(names) > _MOST_NAMES else ""
        return f"there are: {', '.join(names[:_MOST_NAMES])}{more}"

    def at(self, path: Path) -> Bank:
        """The bank in a directory of the store."""
        with self._lock:
            bank = self._open.pop(path, None) or Bank(path)
            self._open[path] = bank
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
            return bank
