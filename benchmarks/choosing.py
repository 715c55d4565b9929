"""The ways from one text to a bank, side by side: time, memory, and what the vectors are worth.

Writes the table of docs/choosing.md. Every build is a whole `costbank build` of a cache that holds the text as ids, and
nothing else. The ways take turns; each round has seeds of its own. Neighbors are compared with those of the Word2Vec
bank of the first round, which shows how much of them the seed alone changes.
"""

import os
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import costbank
from benchmarks.builds import PROCESSES, build, encode, local_engine
from benchmarks.corpora import english, english_model
from benchmarks.evaluation import coverage, worth
from benchmarks.processes import Usage
from benchmarks.record import record
from costbank.analysis.evaluation import neighbor_overlap
from costbank.bank import Bank
from costbank.corpus import Sampling

__all__ = ["run"]

_PAGE = Path(__file__).parents[1] / "docs" / "choosing.md"
_BEGIN, _END = "<!-- python -m benchmarks choosing: begin -->\n", "<!-- python -m benchmarks choosing: end -->\n"
_RUNS, _SMALL_SHARE = 2, 10
_LIBRARIES = ("gensim", "sentencepiece", "faiss-cpu", "numpy", "scipy")

_WORD2VEC, _COUNTS, _HALF = "`word2vec`", "`cooccurrence`", "`cooccurrence`, `power=0.5`"
_WAYS: dict[str, tuple[str, dict[str, float]]] = {
    _WORD2VEC: ("word2vec", {}),
    "`word2vec`, CBOW (`sg=false`)": ("word2vec", {"word2vec.sg": False}),
    "`word2vec`, `hs=true`, `negative=0`": ("word2vec", {"word2vec.hs": True, "word2vec.negative": 0}),
    "`word2vec`, `--sampling 0.5`": ("word2vec", {"corpus.sampling": 0.5}),
    _COUNTS: ("cooccurrence", {}),
    _HALF: ("cooccurrence", {"cooccurrence.power": 0.5}),
    "`cooccurrence`, `window=10`": ("cooccurrence", {"cooccurrence.window": 10}),
    "`cooccurrence`, `--sampling 0.5`": ("cooccurrence", {"corpus.sampling": 0.5}),
}
_SMALL_WAYS = (_WORD2VEC, _COUNTS, _HALF)
_MEASURES = {
    "build": ("s", "{:.1f} s"),
    "peak memory": ("MB", "{:,.0f} MB"),
    "WordSim-353 Spearman": ("rho", "{:.3f}"),
    "SimLex-999 Spearman": ("rho", "{:.3f}"),
    "analogies": ("share", "{:.1%}"),
    "coverage": ("share", "{:.1%}"),
    "overlap@10 with word2vec": ("share", "{:.1%}"),
}
_HEADS = ("time", "memory", "WordSim", "SimLex", "analogies", "coverage", "shared neighbors")


class _Found:
    """What was measured of a way, a value a run; the notes say over how many pairs and questions."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {measure: [] for measure in _MEASURES}
        self.notes: dict[str, str] = {}

    def add(self, usage: Usage, bank: Bank, first: Bank | None) -> None:
        """Of the first bank there is nothing to compare with."""
        of = worth(bank)
        values = [usage.seconds, usage.memory_mb, of.wordsim.rho, of.simlex.rho, of.analogies.accuracy, coverage(bank)]
        if first:
            values.append(neighbor_overlap(bank, first))
        for measure, value in zip(_MEASURES, values, strict=False):
            self.values[measure].append(value)
        self.notes = {
            "WordSim-353 Spearman": f"{of.wordsim.pairs} of {of.wordsim.pairs_given} pairs",
            "SimLex-999 Spearman": f"{of.simlex.pairs} of {of.simlex.pairs_given} pairs",
            "analogies": f"{of.analogies.questions:,} of {of.analogies.questions_given:,} questions",
        }


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = english_model(place)
        small = place / "small.txt"
        small.write_bytes(_first_lines(english(), _SMALL_SHARE))
        whole = _measure(english(), model, place / "whole", tuple(_WAYS))
        part = _measure(small, model, place / "part", _SMALL_WAYS)
        texts = {
            f"{english().stat().st_size / 1e6:.1f} MB of English, all of it": whole,
            f"{small.stat().st_size / 1e6:.1f} MB, the first lines of it": part,
        }
    for text, found in texts.items():
        for way, of_way in found.items():
            for measure, values in of_way.values.items():
                note = "; ".join(filter(None, (way.replace("`", ""), text, of_way.notes.get(measure, ""))))
                if values:
                    record("choosing", measure, _MEASURES[measure][0], values, "", _LIBRARIES, note)
    _write_page(texts)


def _measure(text: Path, model: Path, place: Path, ways: Sequence[str]) -> dict[str, _Found]:
    found, first = {way: _Found() for way in ways}, None
    for seed in range(1, _RUNS + 1):
        for way in ways:
            usage, bank = _build(way, seed, text, model, place)
            found[way].add(usage, bank, first)
            first = first or bank
    return found


def _build(way: str, seed: int, text: Path, model: Path, place: Path) -> tuple[Usage, Bank]:
    source, settings = _WAYS[way]
    alpha = settings.get("corpus.sampling")
    seeds = {f"{source}.seed": seed} | ({"corpus.sampling_seed": seed} if alpha else {})
    name, cache = f"way{list(_WAYS).index(way)}-{seed}", place / "cache"
    with local_engine(cache) as engine:
        encode(text, model, cache, engine, Sampling(alpha, seed) if alpha else None)
    usage = build(source, text, model, place, name, cache, settings | seeds)
    shutil.rmtree(cache)
    return usage, costbank.open_bank(name, place / "store")


def _first_lines(path: Path, share: int) -> bytes:
    """The first lines of a text, one in so many of its bytes."""
    data = path.read_bytes()
    return data[: data.index(b"\n", len(data) // share) + 1]


def _write_page(texts: Mapping[str, dict[str, _Found]]) -> None:
    page = _PAGE.read_text("utf-8")
    before, rest = page.split(_BEGIN)
    _, after = rest.split(_END)
    _PAGE.write_text(before + _BEGIN + "\n" + "\n".join(_tables(texts)) + "\n" + _END + after, "utf-8")


def _tables(texts: Mapping[str, dict[str, _Found]]) -> Sequence[str]:
    lines = []
    for text, found in texts.items():
        counted = next(iter(found.values())).notes.values()
        lines += [
            f"{text}, 16,000 pieces; {', '.join(counted)}:",
            "",
            "| way | " + " | ".join(_HEADS) + " |",
            "|---|" + "---|" * len(_HEADS),
        ]
        for way, of_way in found.items():
            medians = (
                _MEASURES[measure][1].format(statistics.median(values)) if values else "–"
                for measure, values in of_way.values.items()
            )
            lines += [f"| {way} | {' | '.join(medians)} |"]
        lines += [""]
    date = datetime.now(UTC).date().isoformat()
    return [
        *lines,
        f"Medians of {_RUNS} rounds, {date}, {PROCESSES} processes or threads on {os.cpu_count()} cores.",
        "",
    ]


if __name__ == "__main__":
    run()
