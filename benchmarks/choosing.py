"""Compare the sources for text: time, memory, and the quality of the vectors.

Writes the tables of docs/choosing.md. Every build is a whole `costbank build`, with a cache that contains only the
encoded text. Sources run in turns, and each round has different seeds. Neighbors are compared with those of the
Word2Vec bank of the first round; the row of Word2Vec shows how much of them depends on the seed.
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
from benchmarks.evaluation import coverage, english_quality
from benchmarks.processes import Usage
from benchmarks.record import record
from costbank.analysis.evaluation import neighbor_overlap
from costbank.bank import Bank
from costbank.corpus import Sampling

__all__ = ["run"]

_PAGE = Path(__file__).parents[1] / "docs" / "choosing.md"
_BEGIN, _END = "<!-- python -m benchmarks choosing: begin -->\n", "<!-- python -m benchmarks choosing: end -->\n"
_RUNS, _SMALL_SHARE, _SAMPLING = 2, 10, 0.5
_LIBRARIES = ("gensim", "sentencepiece", "faiss-cpu", "numpy", "scipy")

_WORD2VEC, _COUNTS, _BOTH = "`word2vec`", "`cooccurrence`", "`cooccurrence`, `side=both`, `window=5`"
_BOTH_SIDES: dict[str, object] = {"cooccurrence.side": "both", "cooccurrence.window": 5}
_WAYS: dict[str, tuple[str, dict[str, object]]] = {
    _WORD2VEC: ("word2vec", {}),
    "`word2vec`, CBOW (`sg=false`)": ("word2vec", {"word2vec.sg": False}),
    "`word2vec`, `hs=true`, `negative=0`": ("word2vec", {"word2vec.hs": True, "word2vec.negative": 0}),
    "`word2vec`, `--sampling 0.5`": ("word2vec", {"corpus.sampling": _SAMPLING}),
    _COUNTS: ("cooccurrence", {}),
    _BOTH: ("cooccurrence", _BOTH_SIDES),
    "`cooccurrence`, `side=both`, `window=5`, `power=0.5`": ("cooccurrence", _BOTH_SIDES | {"cooccurrence.power": 0.5}),
    "`cooccurrence`, `side=both`, `window=10`": ("cooccurrence", _BOTH_SIDES | {"cooccurrence.window": 10}),
    "`cooccurrence`, `side=both`, `window=5`, `--sampling 0.5`": (
        "cooccurrence",
        _BOTH_SIDES | {"corpus.sampling": _SAMPLING},
    ),
}
_SMALL_WAYS = (_WORD2VEC, _COUNTS, _BOTH)
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


class _Measurements:
    """Measurements of one source with its settings: a value per run, and the numbers of pairs and questions."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {measure: [] for measure in _MEASURES}
        self.notes: dict[str, str] = {}

    def add(self, usage: Usage, bank: Bank, first: Bank | None) -> None:
        """Add a run. The neighbors of the first bank are compared with nothing."""
        quality = english_quality(bank)
        values = [
            usage.seconds,
            usage.memory_mb,
            quality.wordsim.rho,
            quality.simlex.rho,
            quality.analogies.accuracy,
            coverage(bank),
        ]
        if first:
            values.append(neighbor_overlap(bank, first))
        for measure, value in zip(_MEASURES, values, strict=False):
            self.values[measure].append(value)
        self.notes = {
            "WordSim-353 Spearman": f"{quality.wordsim.pairs} of {quality.wordsim.pairs_given} pairs",
            "SimLex-999 Spearman": f"{quality.simlex.pairs} of {quality.simlex.pairs_given} pairs",
            "analogies": f"{quality.analogies.questions:,} of {quality.analogies.questions_given:,} questions",
        }


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = english_model(folder)
        small = folder / "small.txt"
        small.write_bytes(_first_lines(english(), _SMALL_SHARE))
        whole = _measure(english(), model, folder / "whole", tuple(_WAYS))
        part = _measure(small, model, folder / "part", _SMALL_WAYS)
        texts = {
            f"{english().stat().st_size / 1e6:.1f} MB of English, all of it": whole,
            f"{small.stat().st_size / 1e6:.1f} MB, the first lines of it": part,
        }
    for text, results in texts.items():
        for way, measured in results.items():
            for measure, values in measured.values.items():
                note = "; ".join(filter(None, (way.replace("`", ""), text, measured.notes.get(measure, ""))))
                if values:
                    record("choosing", measure, _MEASURES[measure][0], values, "", _LIBRARIES, note)
    _write_page(texts)


def _measure(text: Path, model: Path, folder: Path, ways: Sequence[str]) -> dict[str, _Measurements]:
    results, first = {way: _Measurements() for way in ways}, None
    for seed in range(1, _RUNS + 1):
        for way in ways:
            usage, bank = _build(way, seed, text, model, folder)
            results[way].add(usage, bank, first)
            first = first or bank
    return results


def _build(way: str, seed: int, text: Path, model: Path, folder: Path) -> tuple[Usage, Bank]:
    source, settings = _WAYS[way]
    alpha = _SAMPLING if "corpus.sampling" in settings else None
    seeds = {f"{source}.seed": seed} | ({"corpus.sampling_seed": seed} if alpha else {})
    name, cache = f"way{list(_WAYS).index(way)}-{seed}", folder / "cache"
    with local_engine(cache) as engine:
        encode(text, model, cache, engine, Sampling(alpha, seed) if alpha else None)
    usage = build(source, text, model, folder, name, cache, settings | seeds)
    shutil.rmtree(cache)
    return usage, costbank.open_bank(name, folder / "store")


def _first_lines(path: Path, share: int) -> bytes:
    """The first lines of a text, together 1/`share` of its bytes."""
    data = path.read_bytes()
    return data[: data.index(b"\n", len(data) // share) + 1]


def _write_page(texts: Mapping[str, dict[str, _Measurements]]) -> None:
    page = _PAGE.read_text("utf-8")
    before, remainder = page.split(_BEGIN)
    _, after = remainder.split(_END)
    _PAGE.write_text(before + _BEGIN + "\n" + "\n".join(_tables(texts)) + "\n" + _END + after, "utf-8")


def _tables(texts: Mapping[str, dict[str, _Measurements]]) -> Sequence[str]:
    lines = []
    for text, results in texts.items():
        counted = next(iter(results.values())).notes.values()
        lines += [
            f"{text}, 16,000 pieces; {', '.join(counted)}:",
            "",
            "| source | " + " | ".join(_HEADS) + " |",
            "|---|" + "---|" * len(_HEADS),
        ]
        for way, measured in results.items():
            medians = (
                _MEASURES[measure][1].format(statistics.median(values)) if values else "–"
                for measure, values in measured.values.items()
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
