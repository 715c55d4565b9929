"""Compare a co-occurrence build with a Word2Vec build of the same text: time, and the quality of the vectors.

Both are whole `costbank build` processes with an empty cache: process start, digest, encoding, counting or training,
neighbors, index, writing. They run in turns.
"""

import tempfile
from pathlib import Path

import costbank
from benchmarks.builds import build
from benchmarks.corpora import english, english_model
from benchmarks.evaluation import english_quality
from benchmarks.processes import Usage
from benchmarks.record import record

__all__ = ["run"]

_RUNS = 3
_SOURCES = ("cooccurrence", "word2vec")
_SETTINGS: dict[str, dict[str, object]] = {
    "cooccurrence": {"cooccurrence.side": "both", "cooccurrence.window": 5},
    "word2vec": {"word2vec.epochs": 5},
}
_TARGETS = {"cooccurrence": (">= 0.50", ">= 0.22"), "word2vec": ("", "")}
_LIBRARIES = ("gensim", "sentencepiece", "faiss-cpu", "numpy", "scipy")


def run() -> None:
    usages: dict[str, list[Usage]] = {source: [] for source in _SOURCES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = english_model(folder)
        for number in range(_RUNS):
            for source in _SOURCES if number % 2 else _SOURCES[::-1]:
                settings = _SETTINGS[source]
                cache = folder / f"{source}{number}"
                usages[source].append(build(source, english(), model, folder, source, cache, settings))
        workload = "english.txt, 16k pieces, 128 dimensions, window 5, 2 processes; 5 epochs of Word2Vec"
        for source, of_source in usages.items():
            _record(f"whole {source} build", "s", [usage.seconds for usage in of_source], "", workload)
            _record(f"peak memory of {source}", "MB", [usage.memory_mb for usage in of_source], "", workload)
        pairs = zip(usages["word2vec"], usages["cooccurrence"], strict=True)
        ratios = [theirs.seconds / ours.seconds for theirs, ours in pairs]
        _record("word2vec / cooccurrence", "ratio", ratios, ">= 8", workload)
        for source in _SOURCES:
            quality = english_quality(costbank.open_bank(source, folder / "store"))
            for measure, agreement, target in zip(
                ("WordSim-353", "SimLex-999"), (quality.wordsim, quality.simlex), _TARGETS[source], strict=True
            ):
                note = f"{agreement.pairs} of {agreement.pairs_given} pairs; {workload}"
                _record(f"{measure} Spearman of {source}", "rho", [agreement.rho], target, note)
            note = f"{quality.analogies.questions:,} of {quality.analogies.questions_given:,} questions; {workload}"
            _record(f"analogies of {source}", "share", [quality.analogies.accuracy], "", note)


def _record(measure: str, unit: str, values: list[float], target: str, note: str) -> None:
    record("cooccurrence_build", measure, unit, values, target, _LIBRARIES, note)


if __name__ == "__main__":
    run()
