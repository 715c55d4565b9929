"""The health report of a bank, as plain values that JSON can represent directly."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Duplicates",
    "Evidence",
    "Finding",
    "FormPairs",
    "HealthReport",
    "Hubness",
    "IdRange",
    "Isotropy",
    "NamedGroup",
    "NamedToken",
    "Norms",
    "Quality",
    "Saturation",
    "Severity",
    "UnderTraining",
    "WordForms",
]

_UNUSABLE = ("no-vectors", "equal-rows", "word-forms-at-chance")
"""Findings that make a bank useless for training."""


class Severity(StrEnum):
    """The weight of a finding: no need to act, worth a look, or a reason not to train with the bank."""

    INFO = "info"
    WARNING = "warning"
    SERIOUS = "serious"


class Quality(StrEnum):
    """The verdict on a bank.

    `good`: forms of a word lie near each other, and no finding is serious. `care`: a finding is serious, or forms of a
    word lie only a little nearer than by chance. `poor`: the vectors are useless. `unknown`: the vocabulary has too few
    forms of words, or the source makes them similar by construction, so only the geometry was examined.
    """

    GOOD = "good"
    CARE = "care"
    POOR = "poor"
    UNKNOWN = "unknown"


class Evidence(StrEnum):
    """The result of the test with word forms: nearer than by chance, a little nearer, no nearer, or too few pairs."""

    NEARER = "nearer"
    WEAK = "weak"
    CHANCE = "chance"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class NamedToken:
    """A token in a finding; `value` is its measured value, in the unit that the finding names, or None."""

    id: int
    text: str
    value: float | None = None


@dataclass(frozen=True)
class NamedGroup:
    """A group of tokens: its size, and the first tokens."""

    size: int
    tokens: tuple[NamedToken, ...]


@dataclass(frozen=True)
class Finding:
    """A fact about a bank that its user should know.

    Attributes:
        code: the stable name of the finding, in lower case with hyphens.
        severity: the weight of the finding.
        count: the number of tokens that it is about.
        share: `count` as a share of the tokens that it could be about.
        tokens: the worst of these tokens.
        groups: for a finding about groups, the largest groups instead.
        meaning: what was found, in one or two sentences.
        advice: what to do about it.
    """

    code: str
    severity: Severity
    count: int
    share: float
    tokens: tuple[NamedToken, ...]
    groups: tuple[NamedGroup, ...]
    meaning: str
    advice: str


@dataclass(frozen=True)
class Norms:
    """Euclidean lengths of the raw rows of tokens with a vector.

    Lengths below `small_below` and above `large_above` are outliers; `small` and `large` are their numbers.
    """

    least: float
    percentile_1: float
    percentile_25: float
    median: float
    percentile_75: float
    percentile_99: float
    largest: float
    small_below: float
    large_above: float
    small: int
    large: int


@dataclass(frozen=True)
class Isotropy:
    """How evenly unit rows use their dimensions, after their mean is subtracted.

    Attributes:
        score: IsoScore of Rudman et al. 2022, from 0 (one direction has all variance) to 1 (all have the same).
        effective_dimension: tr(Σ)² / ‖Σ‖², from 1 to dim; the number of dimensions in use, if these vary equally.
        sampled: the number of rows from which ‖Σ‖² was estimated; 0 if it was computed from all rows.
    """

    score: float
    effective_dimension: float
    sampled: int


@dataclass(frozen=True)
class Hubness:
    """k-occurrences N_k of a token: how many tokens have it among their k nearest (Radovanović et al. 2010).

    The mean of N_k is about k.

    Attributes:
        k: the number of columns of the neighbor table that were counted.
        exact: whether the table is exact.
        skewness: E(N − μ)³ / σ³ of N_k over tokens with a vector; 0 if all are equal.
        largest: the largest N_k.
        hubs: the number of tokens with N_k of 10 k or more.
        hub_share: the share of the entries in those columns that are hubs.
        antihubs: the number of tokens with a vector that are in no other token's neighbor list.
    """

    k: int
    exact: bool
    skewness: float
    largest: int
    hubs: int
    hub_share: float
    antihubs: int


@dataclass(frozen=True)
class Duplicates:
    """The number of groups of tokens with equal rows, of tokens in them, and of tokens in the largest."""

    groups: int
    tokens: int
    largest: int


@dataclass(frozen=True)
class Saturation:
    """Rows that an optimizer has driven to its bounds.

    Attributes:
        median_variation: the median over rows of std(|x|) / mean(|x|); √(π/2 − 1) ≈ 0.756 for normal elements.
        whole: the number of rows in which all elements have nearly the same magnitude.
        partly: the number of other rows in which at least a tenth of the elements are at the largest magnitude.
    """

    median_variation: float
    whole: int
    partly: int


@dataclass(frozen=True)
class UnderTraining:
    """Cosines of raw rows to the mean of untrained rows, over tokens that can occur in text.

    `reference` says which rows are the untrained ones: those of ids that no text uses (`unused`), or, in a head without
    such ids, those that tokens share bit for bit (`equal-rows`).
    """

    median: float
    largest: float
    threshold: float
    candidates: int
    reference: str = "unused"


@dataclass(frozen=True)
class FormPairs:
    """Word forms of one kind (`space`, `case`, `ending`).

    Attributes:
        kind: see `costbank.analysis.health.wordforms.form_pairs`.
        pairs: the number of pairs that were compared.
        auc: how often a form lies nearer to its partner than to the partner of another pair: 0.5 by chance, at most 1.
        standard_error: the standard error of `auc`.
    """

    kind: str
    pairs: int
    auc: float
    standard_error: float


@dataclass(frozen=True)
class IdRange:
    """Pairs of word forms with the larger id from `first` to `last`."""

    first: int
    last: int
    pairs: int
    auc: float
    evidence: Evidence


@dataclass(frozen=True)
class WordForms:
    """Whether forms of one word lie nearer to each other than by chance.

    Attributes:
        kinds: the kinds with at least 20 pairs.
        pairs: the number of pairs that were compared, of all kinds.
        tokens: the number of tokens in a pair of these kinds, compared or not.
        auc: the mean over all pairs; None without pairs.
        standard_error: the standard error of `auc`.
        evidence: the conclusion.
        ranges: the results for those quarters of the ids that have at least 20 pairs.
    """

    kinds: tuple[FormPairs, ...]
    pairs: int
    tokens: int
    auc: float | None
    standard_error: float | None
    evidence: Evidence
    ranges: tuple[IdRange, ...]


@dataclass(frozen=True)
class HealthReport:
    """The quality of a bank's vectors. A value is None if it is unknown; a finding then says why.

    Attributes:
        bank, id: the name and id of the bank.
        status: the number of ids with each status.
        vectors: the number of tokens with a vector.
        dim: the number of elements of a row.
        norms: None for a bank without the lengths of its raw rows.
        mean_cosine: over all pairs of different tokens with a vector; None for fewer than two.
        isotropy: None if all rows are equal, or there are too few.
        hubness: None for a bank without a neighbor table.
        duplicates: tokens with stored rows that are equal bit for bit.
        near_duplicates: tokens with a cost below 1e-6 that are not duplicates; None without a neighbor table.
        saturation: None if a transform has rotated the rows, or they are too short.
        under_training: None if the bank has no untrained rows.
        word_forms: the only measure that tests more than geometry.
        built_in: whether the source makes forms of a word similar by construction, so that they show nothing.
        findings: the most severe first.
    """

    bank: str
    id: str
    status: dict[str, int]
    vectors: int
    dim: int
    norms: Norms | None
    mean_cosine: float | None
    isotropy: Isotropy | None
    hubness: Hubness | None
    duplicates: Duplicates
    near_duplicates: Duplicates | None
    saturation: Saturation | None
    under_training: UnderTraining | None
    word_forms: WordForms
    built_in: bool
    findings: tuple[Finding, ...]

    @property
    def quality(self) -> Quality:
        """The verdict in a word."""
        if any(finding.code in _UNUSABLE for finding in self.findings):
            return Quality.POOR
        if any(finding.severity is Severity.SERIOUS for finding in self.findings):
            return Quality.CARE
        if self.built_in or self.word_forms.evidence is Evidence.UNDECIDED:
            return Quality.UNKNOWN
        return Quality.CARE if self.word_forms.evidence is Evidence.WEAK else Quality.GOOD

    @property
    def verdict(self) -> str:
        """One line, which names every finding above the level `info`."""
        codes = ", ".join(finding.code for finding in self.findings if finding.severity is not Severity.INFO)
        match self.quality:
            case Quality.POOR:
                return f"do not use: {codes}"
            case Quality.CARE:
                return f"use with care: {codes}"
            case Quality.UNKNOWN:
                why = "similar by construction" if self.built_in else "too few to tell"
                return f"meaning not tested (forms of words are {why}); geometry: {codes or 'no defect found'}"
        auc = f"good: forms of a word lie near each other (AUC {self.word_forms.auc:.3f})"
        return f"{auc}; look at {codes}" if codes else f"{auc}, and the geometry has no defect"
