"""All measures of a bank, as input for its findings."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from costbank.analysis.health.duplicates import TokenGroups
from costbank.analysis.health.result import Hubness, Norms, Saturation, UnderTraining, WordForms
from costbank.analysis.health.rows import RowMeasures

__all__ = ["Measures"]


@dataclass(frozen=True)
class Measures:
    """The numbers of a `HealthReport`, with the ids of the tokens behind them.

    Attributes:
        rows: the measures of each row.
        norms, hubness, saturation, under_training: None if they are unknown.
        k_occurrences: N_k of every id; None without a neighbor table.
        duplicates, near_duplicates: groups of ids with rows that are equal, or nearly equal.
        saturated, partly_saturated: ids of saturated rows.
        candidates: ids of under-trained tokens, the nearest to untrained rows first.
        untrained_cosines: the cosine of each row to untrained rows; None if they are unknown.
        word_forms: the test with word forms.
    """

    rows: RowMeasures
    norms: Norms | None
    hubness: Hubness | None
    k_occurrences: Int64[np.ndarray, "vocab"] | None
    duplicates: TokenGroups
    near_duplicates: TokenGroups | None
    saturation: Saturation | None
    saturated: Int64[np.ndarray, "saturated"]
    partly_saturated: Int64[np.ndarray, "partly_saturated"]
    under_training: UnderTraining | None
    candidates: Int64[np.ndarray, "candidates"]
    untrained_cosines: Float32[np.ndarray, "vocab"] | None
    word_forms: WordForms
