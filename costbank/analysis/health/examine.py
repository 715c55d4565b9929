"""The look at a bank itself: every measure in turn, then what follows from them."""

import numpy as np
from jaxtyping import Bool

from costbank.analysis.health.findings import findings
from costbank.analysis.health.hubness import hubness
from costbank.analysis.health.likeness import equal_groups, near_groups, summary
from costbank.analysis.health.measures import Measures
from costbank.analysis.health.outliers import near_unused, norm_outliers
from costbank.analysis.health.result import Health, Saturation
from costbank.analysis.health.rows import LEAST_DIM, measure_rows, saturated_rows
from costbank.analysis.health.wordforms import BUILT_IN_SOURCES, word_forms
from costbank.bank import Bank
from costbank.bank.manifest import NEIGHBORS, REPAIR, ROWS
from costbank.errors import CorruptBankError
from costbank.progress import Progress, QuietProgress
from costbank.vocab import TokenStatus

__all__ = ["health"]


def health(bank: Bank, named: int = 10, progress: Progress | None = None) -> Health:
    """The quality of a bank's vectors: their geometry, and whether forms of a word lie near each other.

    Rows are read once, in blocks. Numbers are of the stored unit rows, but for what `Bank.raw` says of the raw ones.

    Args:
        bank: the bank; of format 1, with or without a neighbor table and what was measured of its raw rows.
        named: how many tokens, or groups of them, a finding names at most.
        progress: told the rows that were read.

    Raises:
        CorruptBankError: a file holds what no bank holds, such as NaN; `costbank verify` says which file was changed.
    """
    rows = measure_rows(bank, progress or QuietProgress())
    usable, table, raw = rows.usable, bank.neighbors, bank.raw
    _check(bank, usable)
    norms = norm_outliers(raw.norms[usable]) if raw is not None and usable.any() else None

    found_hubs = counts = near = None
    if table.k:
        found_hubs, counts = hubness(table, usable, bank.manifest.neighbors.exact)
        near = near_groups(table, usable, rows.first_equal)

    saturation, whole, partly = None, np.zeros(0, np.int64), np.zeros(0, np.int64)
    if bank.dim >= LEAST_DIM and not bank.manifest.config.get("transforms") and usable.any():
        whole, partly = map(np.flatnonzero, saturated_rows(rows.variation, rows.at_top, bank.dim))
        saturation = Saturation(float(np.median(rows.variation[usable])), len(whole), len(partly))

    under_training, candidates = None, np.zeros(0, np.int64)
    in_text = np.flatnonzero(usable & (bank.vocab.status != TokenStatus.SPECIAL))
    if raw is not None and len(in_text) and not np.isnan(raw.to_unused[in_text]).any():
        under_training, nearest = near_unused(raw.to_unused[in_text])
        candidates = in_text[nearest]

    forms = word_forms(bank, usable, rows.first_equal)
    equal = equal_groups(rows.first_equal)
    measures = Measures(
        rows=rows,
        norms=norms,
        hubness=found_hubs,
        occurrences=counts,
        equal=equal,
        near=near,
        saturation=saturation,
        whole=whole,
        partly=partly,
        under_training=under_training,
        candidates=candidates,
        word_forms=forms,
    )
    return Health(
        bank=bank.name,
        id=bank.id,
        status=bank.vocab.status_counts(),
        vectors=int(usable.sum()),
        dim=bank.dim,
        norms=norms,
        mean_cosine=rows.mean_cosine,
        isotropy=rows.isotropy,
        hubness=found_hubs,
        duplicates=summary(equal),
        near_duplicates=None if near is None else summary(near),
        saturation=saturation,
        under_training=under_training,
        word_forms=forms,
        built_in=bank.manifest.source in BUILT_IN_SOURCES,
        findings=findings(bank, measures, named),
    )


def _check(bank: Bank, usable: Bool[np.ndarray, "vocab"]) -> None:
    """What rows are measured with must be what it says; the rows themselves are checked as they are read."""
    ids, raw = bank.neighbors.ids, bank.raw
    if ids.size and not -1 <= ids.min() <= ids.max() < bank.size:
        raise CorruptBankError(f"{bank.path / NEIGHBORS} names ids outside the vocabulary", REPAIR)
    if raw is None:
        return
    lengths, cosines = raw.norms[usable], raw.to_unused[~np.isnan(raw.to_unused)]
    if not ((lengths > 0) & np.isfinite(lengths)).all() or not (np.abs(cosines) < 1.01).all():
        raise CorruptBankError(f"{bank.path / ROWS} holds no lengths and cosines", REPAIR)
