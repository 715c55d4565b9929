"""The look at a bank itself: every measure in turn, then what follows from them."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32

from costbank.analysis.health.findings import findings
from costbank.analysis.health.hubness import hubness
from costbank.analysis.health.likeness import Groups, equal_groups, near_groups, summary
from costbank.analysis.health.measures import Measures
from costbank.analysis.health.outliers import equal_row_cosines, near_unused, norm_outliers
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

    equal = equal_groups(rows.first_equal)
    reference, to_untrained = _to_untrained(bank, usable, equal)
    under_training, candidates = None, np.zeros(0, np.int64)
    if to_untrained is not None:
        in_text = np.flatnonzero(usable & (bank.vocab.status != TokenStatus.SPECIAL))
        under_training, nearest = near_unused(to_untrained[in_text])
        under_training, candidates = replace(under_training, reference=reference), in_text[nearest]

    forms = word_forms(bank, usable, rows.first_equal)
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
        to_untrained=to_untrained,
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


def _to_untrained(
    bank: Bank, usable: Bool[np.ndarray, "vocab"], equal: Groups
) -> tuple[str, Float32[np.ndarray, "vocab"] | None]:
    """Which rows stand for untrained ones, and the cosine of each raw row to them."""
    in_text = usable & (bank.vocab.status != TokenStatus.SPECIAL)
    if bank.raw is None or not in_text.any():
        return "unused", None
    if not np.isnan(bank.raw.to_unused[in_text]).any():
        return "unused", bank.raw.to_unused
    if bank.manifest.source != "lm-head" or bank.manifest.config.get("transforms"):
        return "unused", None
    return "equal-rows", equal_row_cosines(bank, equal, bank.raw.norms)


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
