"""What is worth saying of the measures: a code that does not change, how much it weighs, whom it is about, what to do.

Of tokens one by one, a share below 0.1 % of those with a vector is information, below 5 % a warning, and from there on
serious: a few bad rows in a vocabulary of a hundred thousand hardly move a loss. The bounds on numbers of the whole
bank are the project's own; they stand at the top of this module.
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
from costbank.analysis.health.hubness import HUB_FACTOR
from costbank.analysis.health.likeness import NEAR_COST, Groups
from costbank.analysis.health.measures import Measures
from costbank.analysis.health.result import Evidence, Finding, NamedGroup, NamedToken, Severity
from costbank.analysis.health.rows import LEAST_DIM
from costbank.analysis.health.wordforms import BUILT_IN_SOURCES
from costbank.bank import Bank
from costbank.vocab import TokenStatus

__all__ = ["findings"]

_WARNING_SHARE, _SERIOUS_SHARE = 0.001, 0.05
_NOTED_COSINE, _WARNING_COSINE, _SERIOUS_COSINE = 0.25, 0.5, 0.9
_EQUAL_COSINE = 1 - 1e-6
_LEAST_ISOTROPY = 0.05
_WARNING_HUB_SHARE, _SERIOUS_HUB_SHARE = 0.05, 0.5
_WARNING_UNSEEN_SHARE = 0.5

_WEIGHT = {Severity.SERIOUS: 0, Severity.WARNING: 1, Severity.INFO: 2}
_SHARING = ("vectors", "transfer")
"""Sources in which tokens share a word's row by intent: `king` and ` king`, or `King`."""
_COMPUTED = ("vocabulary", "transfer")
"""Sources whose row length reflects how much is known about a token, and not how much it was trained."""


def findings(bank: Bank, measures: Measures, named: int) -> tuple[Finding, ...]:
    """All findings, the weightiest first, each naming `named` tokens at most."""
    look = _Look(bank, measures, named)
    if not measures.rows.usable.any():
        return tuple(look.emptiness())
    parts = (look.forms, look.evidence, look.lengths, look.directions, look.hubs, look.likeness, look.saturation,
             look.training)  # fmt: skip
    found = [finding for part in parts for finding in part()]
    return tuple(sorted(found, key=lambda finding: _WEIGHT[finding.severity]))


class _Look:
    """Findings of one bank, a method for each thing that is looked at."""

    def __init__(self, bank: Bank, measures: Measures, named: int) -> None:
        self._bank, self._measures, self._named = bank, measures, named
        self._usable = int(measures.rows.usable.sum())
        self._transformed = bool(bank.manifest.config.get("transforms"))
        self._source = bank.manifest.source
        self._word2vec = self._source == "word2vec"

    def emptiness(self) -> Iterator[Finding]:
        meaning = "No token has a vector: all mistakes cost 1, and EMO cannot tell them apart."
        advice = "Check what the bank was built from, and build it anew."
        yield Finding("no-vectors", Severity.SERIOUS, self._bank.size, 1.0, (), (), meaning, advice)

    def forms(self) -> Iterator[Finding]:
        """Whether rows belong to their tokens and hold more than noise."""
        forms = self._measures.word_forms
        auc = f"in {forms.auc or 0:.0%} of comparisons, where chance is 50 %"
        measured = f"Forms of a word, such as ▁king and ▁King, lie nearer to each other than to other words {auc}"
        match forms.evidence:
            case Evidence.CHANCE:
                yield self._about_all(
                    "word-forms-at-chance",
                    Severity.SERIOUS,
                    f"{measured} ({forms.pairs:,} pairs): these are random vectors, or vectors of other tokens.",
                    misplaced_advice(self._source),
                )
            case Evidence.UNDECIDED:
                yield self._unknown(
                    "word-forms-unknown",
                    f"Whether near tokens are alike cannot be told: the vocabulary has {forms.pairs:,} pairs of word "
                    "forms with different rows (with and without a space, letter case, endings), too few. All else "
                    "here is about geometry, which random vectors pass too.",
                    "Look at neighbors with `costbank nearest`, or hold the costs against judgements of your own with "
                    "costbank.analysis.evaluation.",
                )
            case Evidence.WEAK:
                yield self._about_all(
                    "weak-word-forms",
                    Severity.WARNING,
                    f"{measured} ({forms.pairs:,} pairs). That is more than chance, and less than usual.",
                    misplaced_advice(self._source),
                )
        if self._source in BUILT_IN_SOURCES and forms.evidence in (Evidence.NEARER, Evidence.WEAK):
            yield self._unknown(
                "word-forms-built-in",
                "Forms of a word are near each other in any bank of this source, since they share their spelling or "
                "pieces. Whether near tokens mean the same is not tested.",
                "Take it for spelling, not for meaning. For meaning, build with --source cooccurrence from text."
                if self._source == "vocabulary"
                else "See how near sums come to true rows in `costbank show`.",
            )
        by_chance = [r for r in forms.ranges if r.evidence is Evidence.CHANCE]
        if by_chance and forms.evidence is not Evidence.CHANCE:
            where = ", ".join(f"{r.first:,} to {r.last:,} ({r.auc:.2f} over {r.pairs:,} pairs)" for r in by_chance)
            yield self._about_all(
                "word-forms-at-chance-in-part",
                Severity.SERIOUS,
                f"Forms of a word lie no nearer to each other than chance where the ids are {where}, AUC in "
                "parentheses: there the rows hold noise, or belong to other tokens.",
                misplaced_advice(self._source),
            )

    def evidence(self) -> Iterator[Finding]:
        """Tokens that have no vector, and those that should have one."""
        status = self._bank.vocab.status
        ordinary = np.isin(status, (TokenStatus.OK, TokenStatus.BYTE))
        unseen = np.flatnonzero(status == TokenStatus.UNSEEN)
        if len(unseen):
            share = len(unseen) / (len(unseen) + int(ordinary.sum()))
            yield self._about(
                "unseen-tokens",
                unseen,
                f"{share:.1%} of the tokens that a text can hold are unseen and have no vector: they cost 1 to all.",
                unseen_advice(self._source),
                share=share,
                severity=Severity.WARNING if share > _WARNING_UNSEEN_SHARE else Severity.INFO,
            )
        zero = np.flatnonzero(ordinary & ~self._measures.rows.usable)
        if len(zero):
            yield self._about(
                "zero-rows",
                zero,
                "These tokens count as usable (status ok or byte), but their rows are zero: they cost 1 to all.",
                "Build the bank anew with this version, which marks such tokens unseen.",
            )

    def lengths(self) -> Iterator[Finding]:
        norms, raw = self._measures.norms, self._bank.raw
        if norms is None or raw is None:
            yield self._unknown(
                "no-raw-norms",
                "The bank does not say how long its rows were before they became unit rows.",
                "Build it anew with this version to know.",
            )
            return
        usable = self._measures.rows.usable
        trained = self._source not in _COMPUTED
        short = np.flatnonzero(usable & (raw.norms < norms.small_below))
        if len(short):
            yield self._about(
                "small-norms",
                short[np.argsort(raw.norms[short], kind="stable")],
                f"Raw rows far shorter than the median of {norms.median:.3g} (below {norms.small_below:.3g}), as rows "
                f"are {'that were hardly trained' if trained else 'of which little is known'}: their directions may be "
                "noise. Lengths in parentheses.",
                self._more_evidence(),
                values=raw.norms,
                severity=None if trained else Severity.INFO,
            )
        long = np.flatnonzero(usable & (raw.norms > norms.large_above))
        if len(long):
            also = "; the transforms were fitted with them" if self._transformed else ""
            yield self._about(
                "large-norms",
                long[np.argsort(-raw.norms[long], kind="stable")],
                f"Raw rows far longer than the median of {norms.median:.3g} (above {norms.large_above:.3g}). Costs "
                "look at directions alone, so they weigh no more than others. Lengths in parentheses.",
                f"See with `costbank nearest` whether their neighbors make sense{also}.",
                values=raw.norms,
                severity=Severity.INFO,
            )

    def directions(self) -> Iterator[Finding]:
        mean, isotropy = self._measures.rows.mean_cosine, self._measures.rows.isotropy
        if mean is not None and mean >= _EQUAL_COSINE:
            yield self._about_all(
                "equal-rows",
                Severity.SERIOUS,
                "All rows point in one direction: every mistake costs next to nothing.",
                misplaced_advice(self._source),
            )
        elif mean is not None and mean >= _NOTED_COSINE:
            yield self._about_all(
                "high-mean-cosine",
                _level(mean, _WARNING_COSINE, _SERIOUS_COSINE),
                f"Two tokens taken at random have a cosine of {mean:.2f}, so a cost of {1 - mean:.2f} instead of about "
                "1: rows share a direction, and costs of unrelated tokens lie closer to those of related ones.",
                self._shared_direction(),
            )
        if isotropy is not None and isotropy.score < _LEAST_ISOTROPY:
            yield self._about_all(
                "low-isotropy",
                Severity.WARNING,
                f"The rows vary in few directions, as {isotropy.effective_dimension:.1f} of {self._bank.dim:,} "
                "dimensions would if used alike. These few decide most costs.",
                self._shared_direction(),
            )

    def hubs(self) -> Iterator[Finding]:
        hubness, counts = self._measures.hubness, self._measures.occurrences
        if hubness is None or counts is None:
            yield self._unknown(
                "no-neighbor-table",
                "The bank has no neighbor table (k = 0): hubs and near-duplicates were not looked for.",
                "Build it without --for-training, with --set neighbors.k=10 or more, to know.",
            )
            return
        least, share = HUB_FACTOR * hubness.k, hubness.hub_share
        hubs = np.flatnonzero(counts >= least)
        if len(hubs):
            yield self._about(
                "hubs",
                hubs[np.argsort(-counts[hubs], kind="stable")],
                f"Each is among the {hubness.k} nearest of {least:,} tokens or more (how many, in parentheses), and "
                f"together they take {share:.1%} of all places there: a mistake that predicts one of them is cheap for "
                "many right tokens, whatever they mean.",
                f"Hubs are near to what all rows share (Suzuki et al. 2013). {self._shared_direction()}",
                values=counts,
                severity=_level(share, _WARNING_HUB_SHARE, _SERIOUS_HUB_SHARE),
            )

    def likeness(self) -> Iterator[Finding]:
        if self._measures.equal:
            yield self._about_groups(
                "duplicates",
                self._measures.equal,
                "The rows of these tokens are the same bit for bit: to take one for the other costs next to nothing.",
            )
        if self._measures.near:
            yield self._about_groups(
                "near-duplicates",
                self._measures.near,
                f"The rows of these tokens differ, but a chain of costs below {NEAR_COST:.0e} joins them: no loss "
                "can tell them apart.",
            )

    def saturation(self) -> Iterator[Finding]:
        if self._measures.saturation is None:
            turned, short = "a transform has turned the rows", f"rows of fewer than {LEAST_DIM} elements do not show it"
            yield self._unknown(
                "saturation-unknown",
                f"Saturated rows were not looked for: {turned if self._transformed else short}.",
                "Build once without transforms to know." if self._transformed else NOTHING_TO_DO,
            )
            return
        variation, share = self._measures.rows.variation, self._measures.rows.at_top / self._bank.dim
        whole, partly = self._measures.whole, self._measures.partly
        why = "Sign-based optimisers such as Lion leave such rows to tokens that hardly occur; they mean nothing."
        if len(whole):
            yield self._about(
                "saturated-rows",
                whole[np.argsort(variation[whole], kind="stable")],
                "All elements of these rows have nearly the same magnitude (its standard deviation over its mean in "
                f"parentheses; 0.76 for normal elements). {why}",
                self._more_evidence(),
                values=variation,
            )
        if len(partly):
            yield self._about(
                "partly-saturated-rows",
                partly[np.argsort(-share[partly], kind="stable")],
                "Many elements of these rows are at the row's largest magnitude (the share of them in parentheses). "
                f"{why}",
                self._more_evidence(),
                values=share,
            )

    def training(self) -> Iterator[Finding]:
        training, raw = self._measures.under_training, self._bank.raw
        if training is None or raw is None:
            if self._word2vec:
                instead = "ids below word2vec.min_count are unseen"
            else:
                instead = "small norms are the only sign" if raw is not None else "nor are norms known"
            yield self._unknown(
                "no-unused-rows",
                "There are no rows that no text uses, so nearness to such rows cannot tell which tokens were hardly "
                f"trained; {instead}.",
                "See whether names such as [unused1] are among the tokens of small norms or equal rows.",
            )
        elif training.candidates:
            rows = "rows that no text uses" if training.reference == "unused" else "rows that tokens share bit for bit"
            yield self._about(
                "under-trained",
                self._measures.candidates,
                f"The raw rows of these tokens are nearer to the mean of {rows} (cosine above "
                f"{training.threshold:.2f}, in parentheses) than is usual ({training.median:.2f}): the model has "
                "hardly learnt them (Land & Bartolo 2024).",
                self._more_evidence(),
                values=self._measures.to_untrained,
            )

    def _more_evidence(self) -> str:
        return evidence_advice(self._source)

    def _shared_direction(self) -> str:
        return shared_direction_advice(self._source, self._bank.dim, self._transformed)

    def _about(
        self,
        code: str,
        ids: np.ndarray,
        meaning: str,
        advice: str,
        values: np.ndarray | None = None,
        share: float | None = None,
        severity: Severity | None = None,
    ) -> Finding:
        share = len(ids) / self._usable if share is None else share
        named = self._names(ids, values)
        return Finding(code, severity or _severity(share), len(ids), share, named, (), meaning, advice)

    def _about_groups(self, code: str, groups: Groups, meaning: str) -> Finding:
        count = sum(map(len, groups))
        named = tuple(NamedGroup(len(group), self._names(group)) for group in groups[: self._named])
        share = count / self._usable
        severity = Severity.INFO if self._source in _SHARING else _severity(share)
        return Finding(code, severity, count, share, (), named, meaning, self._more_evidence())

    def _about_all(self, code: str, severity: Severity, meaning: str, advice: str) -> Finding:
        return Finding(code, severity, self._usable, 1.0, (), (), meaning, advice)

    def _unknown(self, code: str, meaning: str, advice: str) -> Finding:
        return Finding(code, Severity.INFO, 0, 0.0, (), (), meaning, advice)

    def _names(self, ids: np.ndarray, values: np.ndarray | None = None) -> tuple[NamedToken, ...]:
        show = self._bank.vocab.display
        chosen = ids[: self._named].tolist()
        return tuple(NamedToken(i, show(i), None if values is None else float(values[i])) for i in chosen)


def _severity(share: float) -> Severity:
    return _level(share, _WARNING_SHARE, _SERIOUS_SHARE)


def _level(value: float, warning: float, serious: float) -> Severity:
    if value >= serious:
        return Severity.SERIOUS
    return Severity.WARNING if value >= warning else Severity.INFO
