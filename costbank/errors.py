"""Every error that a user can cause, as one tree.

    CostbankError
    ├── UsageError              exit 2   an option, a setting or a reference is malformed
    │   └── MissingExtraError            a library of an optional extra is not installed
    ├── NotFoundError           exit 3
    │   ├── BankNotFoundError            no bank matches the reference
    │   ├── TokenNotFoundError           no token of the vocabulary matches the text or id
    │   └── InputNotFoundError           an input file does not exist
    ├── CorruptBankError        exit 4   a file of a bank differs from the bank's manifest
    └── InputError              exit 5   an input cannot be used
        ├── CorpusError                  text or token ids cannot be read, or cannot be trained on
        ├── TokenizerError               a file is not a tokenizer, or has another vocabulary
        ├── CheckpointError              a model's weights cannot be read, or have no row for some tokens
        ├── ShapeError                   the shapes of arrays do not match
        ├── EngineError                  workers died repeatedly
        ├── RemoteError                  a server, a bucket or the Hub refused a request or gave an unusable answer
        │   └── UnreachableError         it could not be reached, or the connection broke again and again
        └── StorageError                 a directory is not writable, or the disk is full

Each class has a stable `code` (used in HTTP problems), a `title`, and the exit status of the command line. Each
instance has a message that says what is wrong and a hint that says what to do. Any other exception is a bug.
"""

from importlib import import_module
from types import ModuleType

__all__ = [
    "BankNotFoundError",
    "CheckpointError",
    "CorpusError",
    "CorruptBankError",
    "CostbankError",
    "EngineError",
    "InputError",
    "InputNotFoundError",
    "MissingExtraError",
    "NotFoundError",
    "RemoteError",
    "ShapeError",
    "StorageError",
    "TokenNotFoundError",
    "TokenizerError",
    "UnreachableError",
    "UsageError",
    "require",
]


class CostbankError(Exception):
    """Base of all errors that a user can cause.

    Attributes:
        message: what is wrong.
        hint: what to do about it; may be empty.

    `str()` returns both, the hint on a line of its own, so that a traceback shows it too.
    """

    code = "error"
    title = "costbank error"
    exit_status = 5
    http_status = 400

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message(self) -> str:
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(CostbankError):
    code = "usage"
    title = "Malformed request"
    exit_status = 2


class MissingExtraError(UsageError):
    code = "missing-extra"
    title = "An optional library is not installed"
    http_status = 501


class NotFoundError(CostbankError):
    code = "not-found"
    title = "Not found"
    exit_status = 3
    http_status = 404


class BankNotFoundError(NotFoundError):
    code = "bank-not-found"
    title = "No such bank"


class TokenNotFoundError(NotFoundError):
    code = "token-not-found"
    title = "No such token"


class InputNotFoundError(NotFoundError):
    code = "input-not-found"
    title = "No such file"


class CorruptBankError(CostbankError):
    code = "corrupt-bank"
    title = "A bank's file is damaged"
    exit_status = 4
    http_status = 500


class InputError(CostbankError):
    code = "input"
    title = "Unusable input"


class CorpusError(InputError):
    code = "corpus"
    title = "Unusable corpus"


class TokenizerError(InputError):
    code = "tokenizer"
    title = "Unusable tokenizer"


class CheckpointError(InputError):
    code = "checkpoint"
    title = "Unusable model"


class ShapeError(InputError):
    code = "shape"
    title = "Shapes do not fit"


class EngineError(InputError):
    code = "engine"
    title = "Workers were lost"
    http_status = 500


class RemoteError(InputError):
    code = "remote"
    title = "A server cannot be used"
    http_status = 502


class UnreachableError(RemoteError):
    code = "unreachable"
    title = "A server cannot be reached"
    http_status = 504


class StorageError(InputError):
    code = "storage"
    title = "Cannot write"
    http_status = 507


def require(module: str, extra: str, hint: str = "") -> ModuleType:
    """Import `module`, which an extra installs.

    Args:
        module: the module to import.
        extra: the extra that installs it.
        hint: what to do about a module that no extra installs, instead of installing the extra.

    Raises:
        MissingExtraError: the module, or one that it imports, is not installed; the hint names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs the Python library {error.name!r}, which is not installed",
            hint or f"pip install 'costbank[{extra}]'",
        ) from error
