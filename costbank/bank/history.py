"""The banks of one name in the order of their age, and whether the name has come to mean another tokenizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from costbank.bank.manifest import Manifest, load_manifest
from costbank.bank.store import StoredBank
from costbank.errors import CostbankError

__all__ = ["DatedBank", "TokenizerChange", "latest_manifest", "newest_first", "tokenizer_change"]

_SHOWN_DIGITS = 16


@dataclass(frozen=True)
class DatedBank:
    """A stored bank, its manifest, and the time in its manifest when it was created."""

    bank: StoredBank
    manifest: Manifest
    created: datetime


@dataclass(frozen=True)
class TokenizerChange:
    """The latest bank of a name has another tokenizer than the bank before it. `str()` says so, and what to do."""

    name: str
    before: Manifest
    latest: Manifest

    @classmethod
    def between(cls, name: str, before: Manifest | None, latest: Manifest) -> "TokenizerChange | None":
        """The change from one bank to the next; None if there was none before, or if their fingerprints are equal."""
        if before is None or before.tokenizer.fingerprint == latest.tokenizer.fingerprint:
            return None
        return cls(name, before, latest)

    def __str__(self) -> str:
        return (
            f"the name {self.name} now means {self._shown(self.latest)}, but the bank before it, "
            f"{self._shown(self.before)}, is of another tokenizer; give the banks of each tokenizer a name of their "
            f"own, or open a bank as {self.name}@{self.before.id}"
        )

    def _shown(self, manifest: Manifest) -> str:
        tokenizer = manifest.tokenizer
        return (
            f"{self.name}@{manifest.id} of {tokenizer.file} (fingerprint {tokenizer.fingerprint[:_SHOWN_DIGITS]}…, "
            f"{manifest.vectors.vocab:,} ids)"
        )


def newest_first(banks: Iterable[StoredBank]) -> list[DatedBank]:
    """The banks by the time in their manifests, the newest first; banks whose manifest is damaged are left out."""
    dated = []
    for bank in banks:
        try:
            manifest = load_manifest(bank.path)
            created = datetime.fromisoformat(manifest.created)
        except (CostbankError, ValueError):
            continue
        dated.append(DatedBank(bank, manifest, created if created.tzinfo else created.replace(tzinfo=UTC)))
    return sorted(dated, key=lambda one: (one.created, one.bank.latest, one.bank.id), reverse=True)


def latest_manifest(banks: Iterable[StoredBank]) -> Manifest | None:
    """The manifest of the latest of the banks of one name; None if there is none, or it is damaged."""
    return next((one.manifest for one in newest_first(bank for bank in banks if bank.latest)), None)


def tokenizer_change(banks: Iterable[StoredBank]) -> TokenizerChange | None:
    """How the tokenizer of a name's latest bank differs from that of the newest other bank of the name.

    Args:
        banks: all banks of one name.

    Returns:
        None if the fingerprints are equal, there is only one bank, or the latest bank cannot be read.
    """
    dated = newest_first(banks)
    latest = next((one for one in dated if one.bank.latest), None)
    before = next((one for one in dated if not one.bank.latest), None)
    if latest is None or before is None:
        return None
    return TokenizerChange.between(latest.bank.name, before.manifest, latest.manifest)
