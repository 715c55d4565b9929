"""The health report of a bank: every measure, then the findings."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Int64

from costbank.analysis.health.duplicates import TokenGroups, count_duplicates, duplicate_groups, near_duplicate_groups
from costbank.analysis.health.findings import findings
from costbank.analysis.health.hubness import hubness
from costbank.analysis.health.measures import Measures
from costbank.analysis.health.outliers import duplicate_row_cosines, norm_outliers, under_trained
from costbank.analysis.health.result import HealthReport, Saturation, UnderTraining
from costbank.analysis.health.rows import LEAST_DIM, RowMeasures, measure_rows, saturated_rows
from costbank.analysis.health.wordforms import BUILT_IN_SOURCES, word_forms
from costbank.bank import Bank
from costbank.bank.layout import NEIGHBORS, ROWS
from costbank.bank.manifest import REPAIR
from costbank.errors import CorruptBankError
from costbank.progress import Progress, QuietProgress
from costbank.vocab import TokenStatus

__all__ = ["health"]

_NO_IDS = np.zeros(0, np.int64)


def health(bank: Bank, named: int = 10, progress: Progress | None = None) -> HealthReport:
    """The quality of a bank's vectors: their geometry, and whether forms of a word lie near each other.

    Rows are read once, in blocks. Numbers are about the stored unit rows, except those from `Bank.raw`, which are about
    the raw rows.

    Args:
        bank: a bank of format 1, with or without a neighbor table and measures of its raw rows.
        named: the maximum number of tokens, or of groups of tokens, that a finding names.
        progress: receives the number of rows that were read.

    Raises:
        CorruptBankError: a file has impossible values, such as NaN; `costbank verify` names the damaged file.
    """
    measures = _measure(bank, progress or QuietProgress())
    near_duplicates = measures.near_duplicates
    return HealthReport(
        bank=bank.name,
        id=bank.id,
        status=bank.vocab.status_counts(),
        vectors=int(measures.rows.usable.sum()),
        dim=bank.dim,
        norms=measures.norms,
        mean_cosine=measures.rows.mean_cosine,
        isotropy=measures.rows.isotropy,
        hubness=measures.hubness,
        duplicates=count_duplicates(measures.duplicates),
        near_duplicates=None if near_duplicates is None else count_duplicates(near_duplicates),
        saturation=measures.saturation,
        under_training=measures.under_training,
        word_forms=measures.word_forms,
        built_in=bank.manifest.source in BUILT_IN_SOURCES,
        findings=findings(bank, measures, named),
    )


def _measure(bank: Bank, progress: Progress) -> Measures:
    rows = measure_rows(bank, progress)
    usable, table, raw = rows.usable, bank.neighbors, bank.raw
    _check(bank, usable)
    hubs, k_occurrences = hubness(table, usable, bank.manifest.neighbors.exact) if table.k else (None, None)
    saturation, saturated, partly_saturated = _saturation(bank, rows)
    duplicates = duplicate_groups(rows.first_equal)
    under_training, candidates, untrained_cosines = _under_training(bank, usable, duplicates)
    return Measures(
        rows=rows,
        norms=norm_outliers(raw.norms[usable]) if raw is not None and usable.any() else None,
        hubness=hubs,
        k_occurrences=k_occurrences,
        duplicates=duplicates,
        near_duplicates=near_duplicate_groups(table, usable, rows.first_equal) if table.k else None,
        saturation=saturation,
        saturated=saturated,
        partly_saturated=partly_saturated,
        under_training=under_training,
        candidates=candidates,
        untrained_cosines=untrained_cosines,
        word_forms=word_forms(bank, usable, rows.first_equal),
    )


def _saturation(
    bank: Bank, rows: RowMeasures
) -> tuple[Saturation | None, Int64[np.ndarray, "saturated"], Int64[np.ndarray, "partly_saturated"]]:
    """How many rows are saturated, and the ids of the saturated and the partly saturated rows."""
    if bank.dim < LEAST_DIM or bank.manifest.config.get("transforms") or not rows.usable.any():
        return None, _NO_IDS, _NO_IDS
    saturated, partly = map(np.flatnonzero, saturated_rows(rows.variation, rows.at_top, bank.dim))
    median = float(np.median(rows.variation[rows.usable]))
    return Saturation(median, len(saturated), len(partly)), saturated, partly


def _under_training(
    bank: Bank, usable: Bool[np.ndarray, "vocab"], duplicates: TokenGroups
) -> tuple[UnderTraining | None, Int64[np.ndarray, "candidates"], Float32[np.ndarray, "vocab"] | None]:
    """How many tokens are under-trained, their ids, and the cosine of each raw row to untrained rows."""
    in_text = usable & (bank.vocab.status != TokenStatus.SPECIAL)
    if bank.raw is None or not in_text.any():
        return None, _NO_IDS, None
    reference, cosines = "unused", None
    if not np.isnan(bank.raw.to_unused[in_text]).any():
        cosines = bank.raw.to_unused
    elif bank.manifest.source == "lm-head" and not bank.manifest.config.get("transforms"):
        reference, cosines = "equal-rows", duplicate_row_cosines(bank, duplicates, bank.raw.norms)
    if cosines is None:
        return None, _NO_IDS, None
    text_ids = np.flatnonzero(in_text)
    result, positions = under_trained(cosines[text_ids])
    return replace(result, reference=reference), text_ids[positions], cosines


def _check(bank: Bank, usable: Bool[np.ndarray, "vocab"]) -> None:
    """Check the values of the neighbor table and of the raw measures. Rows are checked while they are read.

    Raises:
        CorruptBankError: a value is out of range.
    """
    ids, raw = bank.neighbors.ids, bank.raw
    if ids.size and not -1 <= ids.min() <= ids.max() < bank.size:
        raise CorruptBankError(f"{bank.path / NEIGHBORS} has ids outside the vocabulary", REPAIR)
    if raw is None:
        return
    lengths, cosines = raw.norms[usable], raw.to_unused[~np.isnan(raw.to_unused)]
    if not ((lengths > 0) & np.isfinite(lengths)).all() or not (np.abs(cosines) < 1.01).all():
        raise CorruptBankError(f"{bank.path / ROWS} has lengths or cosines that are out of range", REPAIR)
