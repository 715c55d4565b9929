"""What a look at a bank's health says, as plain values that turn into JSON as they are."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Duplicates",
    "Evidence",
    "Finding",
    "FormPairs",
    "Health",
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
"""Findings that leave nothing to train with."""


class Severity(StrEnum):
    """How much a finding weighs: nothing to act on, to be looked at, or a reason not to train with the bank."""

    INFO = "info"
    WARNING = "warning"
    SERIOUS = "serious"


class Quality(StrEnum):
    """The verdict on a bank.

    `good`: forms of a word lie near each other, and no finding is serious. `care`: a finding is serious, or forms of a
    word lie only a little nearer than chance. `poor`: the vectors tell nothing. `unknown`: the vocabulary has too few
    forms of words, or the source makes them alike by construction, so that only the geometry was examined.
    """

    GOOD = "good"
    CARE = "care"
    POOR = "poor"
    UNKNOWN = "unknown"


class Evidence(StrEnum):
    """What pairs of word forms say: nearer than chance, only a little so, as chance has it, or too few to tell."""

    NEARER = "nearer"
    WEAK = "weak"
    CHANCE = "chance"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class NamedToken:
    """A token in a finding; `value` is what was measured of it, in the unit that the finding names, else None."""

    id: int
    text: str
    value: float | None = None


@dataclass(frozen=True)
class NamedGroup:
    """Tokens that belong together: how many, and the first of them, named."""

    size: int
    tokens: tuple[NamedToken, ...]


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing of a bank.

    Attributes:
        code: its name, which does not change: lower case, with hyphens.
        severity: how much it weighs.
        count: tokens that it is about.
        share: the same as a share of the tokens it could be about.
        tokens: the worst of them, named.
        groups: instead of these, where tokens belong together: the largest groups.
        meaning: one or two sentences.
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

    A length is an outlier below `small_below` or above `large_above`; `small` and `large` count those.
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
    """How evenly unit rows use their dimensions, their mean left out.

    Attributes:
        score: IsoScore of Rudman et al. 2022, from 0 (one direction holds all variance) to 1 (all hold the same).
        effective_dimension: how many dimensions, all used alike, would vary as the rows do: tr(Σ)² / ‖Σ‖², 1 to dim.
        sampled: rows that ‖Σ‖² was estimated from; 0 where it is that of all rows.
    """

    score: float
    effective_dimension: float
    sampled: int


@dataclass(frozen=True)
class Hubness:
    """k-occurrences N_k: in how many tokens' k nearest a token is (Radovanović et al. 2010). Their mean is about k.

    Attributes:
        k: columns of the table that were looked at.
        exact: whether the table is exact.
        skewness: of N_k over tokens with a vector, E(N − μ)³ / σ³; 0 where all are equal.
        largest: the largest N_k.
        hubs: tokens of an N_k of 10 k or more.
        hub_share: share of the places in those columns that the hubs take.
        antihubs: tokens with a vector that are among no token's k nearest.
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
    """Groups of tokens whose rows are the same, how many tokens are in one, and the size of the largest."""

    groups: int
    tokens: int
    largest: int


@dataclass(frozen=True)
class Saturation:
    """Rows that an optimiser has driven to its bounds.

    Attributes:
        median_variation: the median over rows of std(|x|) / mean(|x|); √(π/2 − 1) ≈ 0.756 for normal elements.
        whole: rows all of whose elements have nearly the same magnitude.
        partly: further rows a tenth of whose elements or more are at the row's largest magnitude.
    """

    median_variation: float
    whole: int
    partly: int


@dataclass(frozen=True)
class UnderTraining:
    """Cosines of raw rows to the mean of rows that nothing trained, over tokens that a text can hold.

    `reference` says which rows these are: those of ids that no text uses (`unused`), or, in a head without such ids,
    those that tokens share bit for bit (`equal-rows`).
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
        pairs: how many were compared.
        auc: how often a form lies nearer to its partner than to the partner of another pair: 0.5 by chance, 1 always.
        standard_error: of `auc`.
    """

    kind: str
    pairs: int
    auc: float
    standard_error: float


@dataclass(frozen=True)
class IdRange:
    """Word forms whose larger id is from `first` to `last`."""

    first: int
    last: int
    pairs: int
    auc: float
    evidence: Evidence


@dataclass(frozen=True)
class WordForms:
    """Whether forms of one word lie nearer to each other than chance has it.

    Attributes:
        kinds: those of which there are 20 pairs or more.
        pairs: compared, of all kinds.
        tokens: in a pair of these kinds, compared or not.
        auc: over all pairs; None where there are none.
        standard_error: of `auc`.
        evidence: what follows.
        ranges: the same for quarters of the ids, those with 20 pairs or more.
    """

    kinds: tuple[FormPairs, ...]
    pairs: int
    tokens: int
    auc: float | None
    standard_error: float | None
    evidence: Evidence
    ranges: tuple[IdRange, ...]


@dataclass(frozen=True)
class Health:
    """What is known of a bank's vectors; None where something cannot be told, which a finding then says.

    Attributes:
        bank, id: which bank.
        status: how many ids have each status.
        vectors: tokens that have a vector.
        dim: size of a row.
        norms: None for a bank that does not say how long its raw rows were.
        mean_cosine: over all pairs of different tokens with a vector; None for fewer than two.
        isotropy: None where all rows are the same, or there are too few.
        hubness: None for a bank without a neighbor table.
        duplicates: tokens whose stored rows are equal bit for bit.
        near_duplicates: tokens of a cost below 1e-6 that are not duplicates; None without a neighbor table.
        saturation: None where a transform has turned the rows, or they are too short.
        under_training: None where the bank has no rows that nothing trained.
        word_forms: the one measure here that is about more than geometry.
        built_in: whether the source makes forms of a word alike by construction, so that they prove nothing.
        findings: the weightiest first.
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
