"""Everything that a report says, as plain values for its template."""

import json
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool

from costbank.analysis.comparison import BankComparison, compare_banks
from costbank.analysis.health import HealthReport, health
from costbank.analysis.health.hubness import k_occurrences
from costbank.analysis.report import charts, curves
from costbank.analysis.report.charts import Chart
from costbank.bank import Bank, Neighbor
from costbank.bank.manifest import NeighborFacts
from costbank.config import semantic_settings
from costbank.cost import shortest_float
from costbank.progress import Progress

__all__ = ["Hub", "Neighborhood", "ReportContent", "gather"]

_PAIRS = 100_000
_HUB_K = 10
_NAMED_HUBS = 20
_NAMED_ANTIHUBS = 40
_TOKENS_PER_BAND = 5
_NEIGHBORS = 8
_COMPARED_K = 10
_NAMED_DIFFERENT = 15


@dataclass(frozen=True)
class Hub:
    """A token in many neighbor lists, and its own nearest tokens. `count` is None if it is unknown."""

    id: int
    text: str
    lists: int
    count: int | None
    neighbors: tuple[Neighbor, ...]


@dataclass(frozen=True)
class Neighborhood:
    """A token of the sample, the band it was drawn from, and its nearest tokens."""

    band: str
    id: int
    text: str
    count: int | None
    neighbors: tuple[Neighbor, ...]


@dataclass(frozen=True)
class ReportContent:
    """The content of a report.

    Attributes:
        name: the bank as name@id.
        version: the version of costbank that built the bank.
        facts, settings: names and values.
        health: the health report.
        charts: the charts of each section: `costs`, `frequency`, `hubs`, `map`, `comparison`.
        without: for a section without charts, the reason in words.
        hubs, antihubs: the tokens in the most lists, and the most frequent (or first) of those in none.
        hub_k: the length of the lists.
        neighborhoods: the sample of tokens.
        comparison: the comparison with another bank, if there is one.
        other_facts: names and values of the other bank.
    """

    name: str
    version: str
    facts: dict[str, str]
    settings: dict[str, str]
    health: HealthReport
    charts: dict[str, tuple[Chart, ...]]
    without: dict[str, str]
    hubs: tuple[Hub, ...]
    antihubs: tuple[Neighbor, ...]
    hub_k: int
    neighborhoods: tuple[Neighborhood, ...]
    comparison: BankComparison | None
    other_facts: dict[str, str]


def gather(bank: Bank, other: Bank | None, progress: Progress, most_placed: int = 30_000) -> ReportContent:
    """The content of the report of a bank, compared with `other` if it is given.

    A map with more than `most_placed` tokens is drawn from a sample.
    """
    # The comparison is first, because it refuses banks that do not fit.
    comparison = None
    if other is not None:
        comparison = compare_banks(bank, other, _compared_k(bank, other), _NAMED_DIFFERENT, progress)
    quality = health(bank, progress=progress)
    usable = np.asarray(bank.usable)
    shown: dict[str, tuple[Chart, ...]] = {}
    without: dict[str, str] = {}
    sections = {"costs": _cost_charts, "frequency": _frequency_charts, "hubs": _hub_charts,
                "map": partial(_map_charts, most=most_placed)}  # fmt: skip
    for section, draw in sections.items():
        drawn = draw(bank, usable, progress)
        shown[section], without[section] = (drawn, "") if isinstance(drawn, tuple) else ((), drawn)
    shown["comparison"] = (_compared_ranks(bank, other, progress),) if other else ()
    without["comparison"] = ""
    k = min(_HUB_K, bank.neighbors.k)
    hubs, antihubs = _hubs(bank, usable, k) if k else ((), ())
    with progress.step("sample neighborhoods"):
        neighborhoods = _neighborhoods(bank, usable)
    settings = semantic_settings(bank.manifest.config)
    return ReportContent(
        name=f"{bank.name}@{bank.id}", version=bank.manifest.costbank, facts=_facts(bank),
        settings={key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()},
        health=quality, charts=shown, without=without, hubs=hubs, antihubs=antihubs, hub_k=k,
        neighborhoods=neighborhoods, comparison=comparison, other_facts=_facts(other) if other else {},
    )  # fmt: skip


def _compared_k(bank: Bank, other: Bank) -> int:
    """10, or fewer for tiny banks. `compare_banks` still refuses banks that share too few tokens."""
    smaller = min(int(bank.usable.sum()), int(other.usable.sum()))
    return max(1, min(_COMPARED_K, smaller - 1))


def _facts(bank: Bank) -> dict[str, str]:
    manifest = bank.manifest
    counts = bank.vocab.counts
    total = int(counts[counts > 0].sum())
    facts = {
        "bank": f"{bank.name}@{bank.id}",
        "source": manifest.source,
        "tokenizer": f"{manifest.tokenizer.file} ({manifest.tokenizer.kind})",
        "fingerprint of the vocabulary": manifest.tokenizer.fingerprint,
        "vectors": f"{bank.size:,} × {bank.dim:,}, {manifest.vectors.dtype}",
        "statuses": ", ".join(f"{count:,} {name}" for name, count in manifest.status.items() if count),
        "occurrences in the corpus": f"{total:,}" if total else "unknown",
        "neighbors": _neighbor_facts(manifest.neighbors),
        "size of its files": f"{sum(file.size for file in manifest.files.values()) / 1e6:,.1f} MB",
        "created": f"{manifest.created} by costbank {manifest.costbank}",
        "reproducible": "yes, bit for bit" if manifest.reproducible else "no: trained with several threads",
    }
    facts |= {name.replace("_", " "): f"{value:,}" if isinstance(value, int) else str(value)
              for name, value in manifest.facts.items()}  # fmt: skip
    facts |= {f"input {file['name']}": f"{file['size']:,} bytes, sha256 {file['sha256'][:16]}…"
              for file in manifest.inputs}  # fmt: skip
    if manifest.libraries:
        facts["libraries"] = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())
    return facts


def _neighbor_facts(facts: NeighborFacts) -> str:
    if not facts.k:
        return "no table"
    exactness = "exact" if facts.exact else f"recall@{facts.recall_at} {facts.recall:.4f}"
    return f"{facts.k} per token, {exactness}"


def _cost_charts(bank: Bank, usable: Bool[np.ndarray, "vocab"], progress: Progress) -> tuple[Chart, ...] | str:
    if int(usable.sum()) < 2:
        return "Fewer than two tokens have a vector, so there are no costs to show."
    with progress.step("costs of neighbors", bank.size, "tokens") as step:
        neighbors = curves.neighbor_costs(bank, usable, step)
    with progress.step("costs of random pairs", _PAIRS, "pairs") as step:
        pairs = curves.random_costs(bank, usable, _PAIRS, step)
    edges = curves.cost_edges(neighbors.costs, pairs)
    tokens = f"{len(neighbors.costs):,} sampled tokens" if neighbors.sampled else "tokens"
    drawn = [charts.histogram_chart(curves.histogram(neighbors.costs, edges), curves.histogram(pairs, edges))]
    curve = curves.rank_curve(neighbors.costs)
    if len(curve.ranks):
        drawn.append(charts.rank_chart(curve, tokens))
    return tuple(drawn)


def _compared_ranks(bank: Bank, other: Bank, progress: Progress) -> Chart:
    ranks = []
    for one in (bank, other):
        with progress.step(f"costs by rank in {one.name}@{one.id[:4]}", one.size, "tokens") as step:
            ranks.append(curves.rank_curve(curves.neighbor_costs(one, np.asarray(one.usable), step).costs))
    names = f"{bank.name}@{bank.id[:4]}", f"{other.name}@{other.id[:4]}"
    return charts.compared_ranks_chart((ranks[0], ranks[1]), names)


def _frequency_charts(bank: Bank, usable: Bool[np.ndarray, "vocab"], progress: Progress) -> tuple[Chart, ...] | str:
    counts = bank.vocab.counts[usable]
    if not (counts > 0).any():
        return "The bank does not know how often its tokens occur: its source has no corpus."
    drawn = []
    if bank.raw is not None:
        curve = curves.frequency_curve(counts, bank.raw.norms[usable])
        drawn.append(charts.frequency_chart(
            "norms", "Length of raw rows by frequency", curve, "length",
            "The Euclidean length of the rows of the source, before they were normalized. In trained heads and in "
            "Word2Vec, length depends on frequency; costs do not see it.",
        ))  # fmt: skip
    with progress.step("centrality", 2 * bank.size, "rows") as step:
        cosines = curves.centrality(bank, usable, step)[usable]
    if np.isfinite(cosines).any():
        drawn.append(charts.frequency_chart(
            "centrality", "Centrality by frequency", curves.frequency_curve(counts, cosines), "cosine to the mean row",
            "The cosine of each token's vector to the mean of all vectors. If it rises or falls with frequency, the "
            "vectors hold frequency as well as meaning.",
        ))  # fmt: skip
    return tuple(drawn)


def _hub_charts(bank: Bank, usable: Bool[np.ndarray, "vocab"], _progress: Progress) -> tuple[Chart, ...] | str:
    k = min(_HUB_K, bank.neighbors.k)
    if not k or not usable.any():
        return "The bank has no neighbor table, so hubs are unknown."
    return (charts.occurrence_chart(curves.occurrence_bands(k_occurrences(bank.neighbors, k)[usable]), k),)


def _map_charts(
    bank: Bank, _usable: Bool[np.ndarray, "vocab"], progress: Progress, most: int
) -> tuple[Chart, ...] | str:
    if not bank.has_map:
        return "The bank has no map of its tokens."
    with progress.step("map"):
        xy = np.asarray(bank.map())
        chosen = curves.map_sample(xy, most)
        if not len(chosen):
            return "No token has a place on the map."
        placed, total = charts.PlacedTokens(chosen, xy[chosen]), int(np.isfinite(xy).all(axis=1).sum())
        shown = f"all {total:,}" if total == len(chosen) else f"a random sample of {len(chosen):,} of {total:,}"
        about = f"Shown: {shown} tokens with a place on the map."
        if facts := bank.manifest.map:
            about += (
                f" On average, {facts.kept:.0%} of a token's {facts.kept_of} nearest tokens are among the "
                f"{facts.kept_of} nearest on the map."
            )
        drawn = [charts.map_by_status(bank.vocab, placed, about)]
        if (bank.vocab.counts[chosen] > 0).any():
            known = chosen[bank.vocab.counts[chosen] >= 0]
            drawn.append(charts.map_by_frequency(bank.vocab, charts.PlacedTokens(known, xy[known])))
    return tuple(drawn)


def _hubs(bank: Bank, usable: Bool[np.ndarray, "vocab"], k: int) -> tuple[tuple[Hub, ...], tuple[Neighbor, ...]]:
    """The tokens in the most lists, and the most frequent of those in none (the first, if counts are unknown)."""
    occurrences = np.where(usable, k_occurrences(bank.neighbors, k), -1)
    row_ids = np.flatnonzero(usable)
    top = row_ids[np.lexsort((row_ids, -occurrences[row_ids]))][:_NAMED_HUBS]
    nearest = curves.nearest_neighbors(bank, usable, top, min(k, _NEIGHBORS))
    hubs = tuple(
        Hub(i, bank.vocab.display(i), int(occurrences[i]), _count(bank, i), _named(bank, *found))
        for i, found in zip(top.tolist(), nearest, strict=True)
    )
    none = np.flatnonzero(occurrences == 0)
    none = none[np.lexsort((none, -bank.vocab.counts[none]))][:_NAMED_ANTIHUBS]
    costs = bank.neighbors.costs[none, 0]
    return hubs, tuple(Neighbor(i, bank.vocab.display(i), shortest_float(cost))
                       for i, cost in zip(none.tolist(), costs, strict=True))  # fmt: skip


def _neighborhoods(bank: Bank, usable: Bool[np.ndarray, "vocab"]) -> tuple[Neighborhood, ...]:
    bands = curves.frequency_bands(bank, usable, _TOKENS_PER_BAND)
    chosen = [(band.name, token) for band in bands for token in band.token_ids]
    if len(np.flatnonzero(usable)) < 2:
        return ()
    nearest = curves.nearest_neighbors(bank, usable, np.array([i for _, i in chosen], np.int64), _NEIGHBORS)
    return tuple(
        Neighborhood(band, i, bank.vocab.display(i), _count(bank, i), _named(bank, *found))
        for (band, i), found in zip(chosen, nearest, strict=True)
    )


def _named(bank: Bank, ids: np.ndarray, costs: np.ndarray) -> tuple[Neighbor, ...]:
    return tuple(Neighbor(i, bank.vocab.display(i), shortest_float(cost))
                 for i, cost in zip(ids.tolist(), costs, strict=True))  # fmt: skip


def _count(bank: Bank, token: int) -> int | None:
    count = int(bank.vocab.counts[token])
    return count if count >= 0 else None
