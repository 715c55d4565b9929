"""Banks that are repositories of the Hugging Face Hub."""

from collections.abc import Iterator
from typing import Any

from costbank.bank.layout import MANIFEST
from costbank.errors import BankNotFoundError, RemoteError, require
from costbank.files import FileDigest
from costbank.remote.addresses import BankAddress
from costbank.remote.buckets import file_blocks, passing_errors, read_start
from costbank.remote.origins import FoundBank, checked_manifest

__all__ = ["HUB_HINT", "HubOrigin"]

HUB_HINT = "for a private repository, log in with `hf auth login`, or set $HF_TOKEN"


class HubOrigin:
    """A repository with the files of one bank at its root. The Hub's own variables apply, such as `$HF_TOKEN`."""

    def __init__(self, address: BankAddress) -> None:
        self._hub: Any = require("huggingface_hub", "remote")
        self._address = address
        # Instances are shared by default, with their lists of files, which would hide a new revision.
        self._filesystem = self._hub.HfFileSystem(skip_instance_cache=True)

    def find(self) -> FoundBank:
        address, errors = self._address, self._hub.errors
        with passing_errors(address.url):
            try:
                info = self._hub.HfApi().repo_info(address.base, revision=address.revision or None)
                place = f"{address.base}@{info.sha}"
                data = read_start(self._filesystem, f"{place}/{MANIFEST}")
            except (errors.GatedRepoError, errors.HfHubHTTPError) as error:
                raise self._refusal(error) from error
            except FileNotFoundError:
                raise BankNotFoundError(f"{address.url} is not a bank: it has no {MANIFEST}", HUB_HINT) from None
        return FoundBank(place, data, checked_manifest(data, address))

    def blocks(self, bank: FoundBank, file: str, digest: FileDigest, start: int) -> Iterator[bytes]:
        yield from file_blocks(self._filesystem, f"{bank.place}/{file}", digest, start)

    def _refusal(self, error: Any) -> Exception:
        """The error to raise for an answer of the Hub; the same error if it may pass."""
        errors, url = self._hub.errors, self._address.url
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if isinstance(error, errors.RevisionNotFoundError):
            return BankNotFoundError(f"{url}: the repository has no such revision", "check what follows the @")
        if status in (401, 403) or isinstance(error, errors.GatedRepoError):
            return RemoteError(f"{url}: the Hub refuses access ({status}), or there is no such repository", HUB_HINT)
        if status == 404:
            return BankNotFoundError(f"there is no repository {url}", HUB_HINT)
        return error
