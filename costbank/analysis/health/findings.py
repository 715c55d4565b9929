"""Findings from the measures. Each has a stable code, a severity, the tokens that it is about, and advice.

A finding about single tokens is information if they are less than 0.1 % of the tokens with a vector, a warning below
5 %, and serious otherwise: a few bad rows in a vocabulary of a hundred thousand hardly change a loss. The thresholds
for numbers about the whole bank are this project's choice; they are constants of this module.
"""

from collections.abc import Iterator

import numpy as np

from costbank.analysis.health.advice import (
    NOTHING_TO_DO,
    evidence_advice,
    misplaced_advice,
    shared_direction_advice,
    unseen_advice,
)
from costbank.analysis.health.duplicates import NEAR_COST, TokenGroups
from costbank.analysis.health.hubness import HUB_FACTOR
from costbank.analysis.health.measures import Measures
from costbank.analysis.health.result import Evidence, Finding, NamedGroup, NamedToken, Severity
from costbank.analysis.health.rows import LEAST_DIM
from costbank.analysis.health.wordforms import BUILT_IN_SOURCES
from costbank.bank import Bank
from costbank.vocab import TokenStatus

__all__ = ["findings"]

_WARNING_SHARE, _SERIOUS_SHARE = 0.001, 0.05
_NOTED_COSINE, _WARNING_COSINE, _SERIOUS_COSINE = 0.25, 0.5, 0.9
_SAME_DIRECTION_COSINE = 1 - 1e-6
_LEAST_ISOTROPY = 0.05
_WARNING_HUB_SHARE, _SERIOUS_HUB_SHARE = 0.05, 0.5
_WARNING_UNSEEN_SHARE = 0.5

_SORT_ORDER = {Severity.SERIOUS: 0, Severity.WARNING: 1, Severity.INFO: 2}
_SHARED_ROW_SOURCES = ("vectors", "transfer")
"""Sources in which tokens share a word's row on purpose: `king` and ` king`, or `King`."""
_UNTRAINED_SOURCES = ("spelling", "transfer")
"""Sources in which row length reflects how much is known about a token, not how much it was trained."""


def findings(bank: Bank, measures: Measures, most_named: int) -> tuple[Finding, ...]:
    """All findings, the most severe first. Each names at most `most_named` tokens or groups."""
    collector = _FindingCollector(bank, measures, most_named)
    if not measures.rows.usable.any():
        return (collector.no_vectors(),)
    topics = (collector.word_forms, collector.missing_vectors, collector.lengths, collector.directions, collector.hubs,
              collector.duplicates, collector.saturation, collector.training)  # fmt: skip
    collected = [finding for topic in topics for finding in topic()]
    return tuple(sorted(collected, key=lambda finding: _SORT_ORDER[finding.severity]))


class _FindingCollector:
    """The findings of one bank, with a method for each topic."""

    def __init__(self, bank: Bank, measures: Measures, most_named: int) -> None:
        self._bank, self._measures, self._most_named = bank, measures, most_named
        self._usable_count = int(measures.rows.usable.sum())
        self._transformed = bool(bank.manifest.config.get("transforms"))
        self._source = bank.manifest.source

    def no_vectors(self) -> Finding:
        meaning = "No token has a vector: all mistakes cost 1, and EMO cannot distinguish them."
        advice = "Check the source of the bank, and build it again."
        return Finding("no-vectors", Severity.SERIOUS, self._bank.size, 1.0, (), (), meaning, advice)

    def word_forms(self) -> Iterator[Finding]:
        """Whether rows belong to their tokens and are more than noise."""
        forms = self._measures.word_forms
        auc = f"in {forms.auc or 0:.0%} of comparisons, where chance is 50 %"
        measured = f"Forms of a word, such as ▁king and ▁King, lie nearer to each other than to other words {auc}"
        match forms.evidence:
            case Evidence.CHANCE:
                yield self._about_all_tokens(
                    "word-forms-at-chance",
                    Severity.SERIOUS,
                    f"{measured} ({forms.pairs:,} pairs): these are random vectors, or vectors of other tokens.",
                    misplaced_advice(self._source),
                )
            case Evidence.UNDECIDED:
                yield self._without_tokens(
                    "word-forms-unknown",
                    f"It is unknown whether near tokens are similar. The vocabulary has {forms.pairs:,} pairs of word "
                    "forms with different rows (with and without a space, letter case, endings), which is too few. The "
                    "other tests are about geometry, which random vectors pass too.",
                    "Look at neighbors with `costbank nearest`, or compare the costs with your own judgments of word "
                    "pairs, with `costbank eval --words`.",
                )
            case Evidence.WEAK:
                yield self._about_all_tokens(
                    "weak-word-forms",
                    Severity.WARNING,
                    f"{measured} ({forms.pairs:,} pairs). That is more than chance, but less than usual.",
                    misplaced_advice(self._source),
                )
        if self._source in BUILT_IN_SOURCES and forms.evidence in (Evidence.NEARER, Evidence.WEAK):
            yield self._without_tokens(
                "word-forms-built-in",
                "Forms of a word are near each other in any bank of this source, because they share their spelling or "
                "pieces. Whether near tokens have similar meanings is not tested.",
                "Its costs are about spelling, not meaning. For meaning, build with --source cooccurrence from text."
                if self._source == "spelling"
                else "`costbank show` says how close sums are to true rows.",
            )
        by_chance = [r for r in forms.ranges if r.evidence is Evidence.CHANCE]
        if by_chance and forms.evidence is not Evidence.CHANCE:
            where = ", ".join(f"{r.first:,} to {r.last:,} ({r.auc:.2f} over {r.pairs:,} pairs)" for r in by_chance)
            yield self._about_all_tokens(
                "word-forms-at-chance-in-part",
                Severity.SERIOUS,
                f"Forms of a word lie no nearer to each other than by chance for ids from {where}, AUC in "
                "parentheses: these rows are noise, or belong to other tokens.",
                misplaced_advice(self._source),
            )

    def missing_vectors(self) -> Iterator[Finding]:
        """Tokens without a vector."""
        status = self._bank.vocab.status
        ordinary = np.isin(status, (TokenStatus.OK, TokenStatus.BYTE))
        unseen = np.flatnonzero(status == TokenStatus.UNSEEN)
        if len(unseen):
            share = len(unseen) / (len(unseen) + int(ordinary.sum()))
            yield self._about_tokens(
                "unseen-tokens",
                unseen,
                f"{share:.1%} of the tokens that can occur in text are unseen and have no vector: their cost to "
                "every other token is 1.",
                unseen_advice(self._source),
                share=share,
                severity=Severity.WARNING if share > _WARNING_UNSEEN_SHARE else Severity.INFO,
            )
        zero = np.flatnonzero(ordinary & ~self._measures.rows.usable)
        if len(zero):
            yield self._about_tokens(
                "zero-rows",
                zero,
                "These tokens count as usable (status ok or byte), but their rows are zero: their cost to every "
                "other token is 1.",
                "Build the bank again with this version, which marks such tokens as unseen.",
            )

    def lengths(self) -> Iterator[Finding]:
        norms, raw = self._measures.norms, self._bank.raw
        if norms is None or raw is None:
            yield self._without_tokens(
                "no-raw-norms",
                "The lengths of the rows before normalization are unknown: the bank does not have them.",
                "Build the bank again with this version to get them.",
            )
            return
        usable = self._measures.rows.usable
        trained = self._source not in _UNTRAINED_SOURCES
        short = np.flatnonzero(usable & (raw.norms < norms.small_below))
        if len(short):
            yield self._about_tokens(
                "small-norms",
                short[np.argsort(raw.norms[short], kind="stable")],
                f"The raw rows are far shorter than the median of {norms.median:.3g} (below {norms.small_below:.3g}); "
                f"short rows {'were hardly trained' if trained else 'have little information'}, and their directions "
                "may be noise. Lengths in parentheses.",
                self._evidence_advice(),
                values=raw.norms,
                severity=None if trained else Severity.INFO,
            )
        long = np.flatnonzero(usable & (raw.norms > norms.large_above))
        if len(long):
            also = "; the transforms were fitted to these rows" if self._transformed else ""
            yield self._about_tokens(
                "large-norms",
                long[np.argsort(-raw.norms[long], kind="stable")],
                f"The raw rows are far longer than the median of {norms.median:.3g} (above {norms.large_above:.3g}). "
                "Costs depend only on directions, so long rows count no more than others. Lengths in parentheses.",
                f"Check with `costbank nearest` whether their neighbors make sense{also}.",
                values=raw.norms,
                severity=Severity.INFO,
            )

    def directions(self) -> Iterator[Finding]:
        mean, isotropy = self._measures.rows.mean_cosine, self._measures.rows.isotropy
        if mean is not None and mean >= _SAME_DIRECTION_COSINE:
            yield self._about_all_tokens(
                "equal-rows",
                Severity.SERIOUS,
                "All rows point in the same direction: every mistake has a cost of nearly 0.",
                misplaced_advice(self._source),
            )
        elif mean is not None and mean >= _NOTED_COSINE:
            yield self._about_all_tokens(
                "high-mean-cosine",
                _level(mean, _WARNING_COSINE, _SERIOUS_COSINE),
                f"Two random tokens have a mean cosine of {mean:.2f}, so a cost of {1 - mean:.2f} instead of about 1: "
                "rows share a direction, and the costs of unrelated tokens are closer to those of related ones.",
                self._direction_advice(),
            )
        if isotropy is not None and isotropy.score < _LEAST_ISOTROPY:
            yield self._about_all_tokens(
                "low-isotropy",
                Severity.WARNING,
                f"The rows vary in few directions: their effective dimension is {isotropy.effective_dimension:.1f} of "
                f"{self._bank.dim:,}. These few directions determine most costs.",
                self._direction_advice(),
            )

    def hubs(self) -> Iterator[Finding]:
        hubness, counts = self._measures.hubness, self._measures.k_occurrences
        if hubness is None or counts is None:
            yield self._without_tokens(
                "no-neighbor-table",
                "The bank has no neighbor table (k = 0), so hubs and near-duplicates are unknown.",
                "Build it without --for-training, with --set neighbors.k=10 or more, to test for them.",
            )
            return
        least, share = HUB_FACTOR * hubness.k, hubness.hub_share
        hubs = np.flatnonzero(counts >= least)
        if len(hubs):
            yield self._about_tokens(
                "hubs",
                hubs[np.argsort(-counts[hubs], kind="stable")],
                f"Each of these tokens is among the {hubness.k} nearest of at least {least:,} tokens (numbers in "
                f"parentheses), and together they are {share:.1%} of all entries in these lists. Predicting a hub by "
                "mistake is cheap for many correct tokens, whatever they mean.",
                f"Hubs are near the direction that all rows share (Suzuki et al. 2013). {self._direction_advice()}",
                values=counts,
                severity=_level(share, _WARNING_HUB_SHARE, _SERIOUS_HUB_SHARE),
            )

    def duplicates(self) -> Iterator[Finding]:
        if self._measures.duplicates:
            yield self._about_groups(
                "duplicates",
                self._measures.duplicates,
                "The rows of these tokens are equal bit for bit: confusing one with another has a cost of nearly 0.",
            )
        if self._measures.near_duplicates:
            yield self._about_groups(
                "near-duplicates",
                self._measures.near_duplicates,
                f"The rows of these tokens differ, but a chain of costs below {NEAR_COST:.0e} connects them: no loss "
                "can distinguish them.",
            )

    def saturation(self) -> Iterator[Finding]:
        if self._measures.saturation is None:
            rotated, short = (
                "a transform has rotated the rows",
                f"rows of fewer than {LEAST_DIM} elements do not show it",
            )
            yield self._without_tokens(
                "saturation-unknown",
                f"It is unknown which rows are saturated: {rotated if self._transformed else short}.",
                "Build once without transforms to test for them." if self._transformed else NOTHING_TO_DO,
            )
            return
        variation, share = self._measures.rows.variation, self._measures.rows.at_top / self._bank.dim
        saturated, partly = self._measures.saturated, self._measures.partly_saturated
        why = "Sign-based optimizers such as Lion give rare tokens such rows, which are meaningless."
        if len(saturated):
            yield self._about_tokens(
                "saturated-rows",
                saturated[np.argsort(variation[saturated], kind="stable")],
                "All elements of these rows have nearly the same magnitude (standard deviation over mean in "
                f"parentheses; 0.76 for normal elements). {why}",
                self._evidence_advice(),
                values=variation,
            )
        if len(partly):
            yield self._about_tokens(
                "partly-saturated-rows",
                partly[np.argsort(-share[partly], kind="stable")],
                f"Many elements of these rows are at the row's largest magnitude (their share in parentheses). {why}",
                self._evidence_advice(),
                values=share,
            )

    def training(self) -> Iterator[Finding]:
        training, raw = self._measures.under_training, self._bank.raw
        if training is None or raw is None:
            if self._source == "word2vec":
                instead = "ids below word2vec.min_count are unseen"
            elif raw is not None:
                instead = "small norms are the only sign"
            else:
                instead = "norms are unknown too"
            yield self._without_tokens(
                "no-unused-rows",
                "The bank has no rows of unused ids, so nearness to them cannot show which tokens were hardly trained; "
                f"{instead}.",
                "Look for names such as [unused1] among the tokens with small norms or equal rows.",
            )
        elif training.candidates:
            rows = "rows of unused ids" if training.reference == "unused" else "rows that tokens share bit for bit"
            yield self._about_tokens(
                "under-trained",
                self._measures.candidates,
                f"The raw rows of these tokens are nearer to the mean of {rows} than usual (cosine above "
                f"{training.threshold:.2f}, in parentheses; the median is {training.median:.2f}): the model has hardly "
                "learned these tokens (Land & Bartolo 2024).",
                self._evidence_advice(),
                values=self._measures.untrained_cosines,
            )

    def _evidence_advice(self) -> str:
        return evidence_advice(self._source)

    def _direction_advice(self) -> str:
        return shared_direction_advice(self._source, self._bank.dim, self._transformed)

    def _about_tokens(
        self,
        code: str,
        ids: np.ndarray,
        meaning: str,
        advice: str,
        values: np.ndarray | None = None,
        share: float | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        share = len(ids) / self._usable_count if share is None else share
        tokens = self._named_tokens(ids, values)
        return Finding(code, severity or _severity(share), len(ids), share, tokens, (), meaning, advice)

    def _about_groups(self, code: str, groups: TokenGroups, meaning: str) -> Finding:
        count = sum(map(len, groups))
        largest = tuple(NamedGroup(len(group), self._named_tokens(group)) for group in groups[: self._most_named])
        share = count / self._usable_count
        severity = Severity.INFO if self._source in _SHARED_ROW_SOURCES else _severity(share)
        return Finding(code, severity, count, share, (), largest, meaning, self._evidence_advice())

    def _about_all_tokens(self, code: str, severity: Severity, meaning: str, advice: str) -> Finding:
        return Finding(code, severity, self._usable_count, 1.0, (), (), meaning, advice)

    def _without_tokens(self, code: str, meaning: str, advice: str) -> Finding:
        return Finding(code, Severity.INFO, 0, 0.0, (), (), meaning, advice)

    def _named_tokens(self, ids: np.ndarray, values: np.ndarray | None = None) -> tuple[NamedToken, ...]:
        display = self._bank.vocab.display
        chosen = ids[: self._most_named].tolist()
        return tuple(NamedToken(i, display(i), None if values is None else float(values[i])) for i in chosen)


def _severity(share: float) -> Severity:
    return _level(share, _WARNING_SHARE, _SERIOUS_SHARE)


def _level(value: float, warning: float, serious: float) -> Severity:
    if value >= serious:
        return Severity.SERIOUS
    return Severity.WARNING if value >= warning else Severity.INFO
