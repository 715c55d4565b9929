"""All that was measured of a bank, on its way to findings."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from costbank.analysis.health.likeness import Groups
from costbank.analysis.health.result import Hubness, Norms, Saturation, UnderTraining, WordForms
from costbank.analysis.health.rows import RowMeasures

__all__ = ["Measures"]


@dataclass(frozen=True)
class Measures:
    """What `Health` has in numbers, with the ids that are behind them.

    Attributes:
        rows: of each row.
        norms, hubness, saturation, under_training: None where they cannot be told.
        occurrences: N_k of every id; None without a neighbor table.
        equal, near: ids whose rows are the same, or all but the same.
        whole, partly: ids of saturated rows.
        candidates: ids of under-trained tokens, the nearest to untrained rows first.
        to_untrained: the cosine of each row to untrained ones; None where it is not known.
        word_forms: the test by forms of words.
    """

    rows: RowMeasures
    norms: Norms | None
    hubness: Hubness | None
    occurrences: Int64[np.ndarray, "vocab"] | None
    equal: Groups
    near: Groups | None
    saturation: Saturation | None
    whole: Int64[np.ndarray, "whole"]
    partly: Int64[np.ndarray, "partly"]
    under_training: UnderTraining | None
    candidates: Int64[np.ndarray, "candidates"]
    to_untrained: Float32[np.ndarray, "vocab"] | None
    word_forms: WordForms
