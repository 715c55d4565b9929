"""What the URL of a bank refers to."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from costbank.bank.layout import ID_DIGITS
from costbank.bank.store import NAME_PATTERN
from costbank.errors import UsageError

__all__ = ["BankAddress", "parse_address"]

_REFERENCE = re.compile(rf"({NAME_PATTERN})(?:@([0-9a-f]{{4,{ID_DIGITS}}}))?")
_SERVED = "/v1/banks/"
_REPOSITORY = re.compile(r"hf://([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,200}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HTTP_HINT = "give http://host:8137/v1/banks/NAME or …/NAME@ID"


@dataclass(frozen=True)
class BankAddress:
    """The URL of a bank, in parts.

    Attributes:
        url: as the user gave it, without a slash at the end.
        kind: a costbank service, a repository of the Hugging Face Hub, or a store in a bucket.
        base: the URL of the service's banks or of the store; of the Hub, the repository.
        name: the bank's name, which is that of its directory on this machine.
        prefix: the digits of the id in the URL; empty for the latest bank.
        revision: of the Hub, the revision in the URL; empty for the main branch.
    """

    url: str
    kind: Literal["service", "hub", "bucket"]
    base: str
    name: str
    prefix: str = ""
    revision: str = ""

    @property
    def id(self) -> str | None:
        """The bank's id, if the URL has all of its digits."""
        return self.prefix if len(self.prefix) == ID_DIGITS else None

    @property
    def is_fixed(self) -> bool:
        """Whether the URL refers to the same bytes for ever."""
        return self.id is not None or _COMMIT.fullmatch(self.revision) is not None


def parse_address(url: str) -> BankAddress:
    """Take the URL of a bank apart.

    Raises:
        UsageError: it is not the URL of a bank.
    """
    url = url.rstrip("/")
    scheme = url.split("://")[0].lower()
    if scheme == "hf":
        return _of_hub(url)
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        shown = f"{scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise UsageError(f"{shown} contains a password or a user name", "put the key into $COSTBANK_API_KEY")
    if scheme in ("http", "https"):
        if parts.query or parts.fragment or _SERVED not in parts.path or not parts.hostname:
            raise UsageError(f"{url} is not the URL of a bank on a costbank service", _HTTP_HINT)
        base, _, reference = url.rpartition("/")
        if not base.endswith(_SERVED[:-1]):
            raise UsageError(f"{url} is not the URL of a bank on a costbank service", _HTTP_HINT)
        return BankAddress(url, "service", base, *_named(url, reference, _HTTP_HINT))
    base, _, reference = url.rpartition("/")
    hint = f"give {scheme}://BUCKET/PATH/NAME or …/NAME@ID; PATH is a directory of banks"
    if base.endswith(("://", ":/")):
        raise UsageError(f"{url} has no bank name", hint)
    return BankAddress(url, "bucket", base, *_named(url, reference, hint))


def _named(url: str, reference: str, hint: str) -> tuple[str, str]:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(f"{url}: {reference!r} is not a bank name, or a name, @ and 4 to 16 digits of an id", hint)
    return match[1], match[2] or ""


def _of_hub(url: str) -> BankAddress:
    match = _REPOSITORY.fullmatch(url)
    if match is None:
        raise UsageError(
            f"{url} is not a repository of the Hugging Face Hub",
            "give hf://ORGANIZATION/REPOSITORY, or …@REVISION for a branch, a tag or a commit",
        )
    repository, revision = match[1], match[2] or ""
    name = re.sub(r"[^a-z0-9._-]+", "-", repository.partition("/")[2].lower())[:64]
    return BankAddress(url, "hub", repository, name, revision=revision)
