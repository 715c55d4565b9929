"""A map of tokens from the stored neighbor table, against openTSNE from the rows: CPU time, memory and quality.

The rows are synthetic: 64 dimensions, in clusters of 64 tokens on average. Each side runs in its own process, in one
thread, and its time is CPU time without imports. openTSNE has its defaults, but for the perplexity, which is that of
the map, and the method, which is the interpolation on a grid for both. The map saves the search for neighbors, and
its grid has cells twice as wide, which costs some quality. `python -m benchmarks.layout 32000` measures
another number of tokens than 128,000.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.record import record
from costbank.neighbors import exact_neighbors
from costbank.transforms import normalize

__all__ = ["run"]

_DIM, _CLUSTER, _SPREAD, _K, _SEED = 64, 64, 0.6, 64, 0
_TOKENS = 128_000

_OURS = """
import json, resource, sys, time
import numpy as np
from costbank.analysis.layout import lay_out, layout_method
from costbank.neighbors import NeighborTable
layout_method()
import sklearn.decomposition, scipy.spatial, openTSNE.affinity
rows, ids, costs = (np.load(f"{sys.argv[1]}/{name}.npy") for name in ("rows", "ids", "costs"))
began = time.process_time()
made = lay_out(rows.__getitem__, np.ones(len(rows), bool), NeighborTable(ids, costs))
seconds = time.process_time() - began
np.save(f"{sys.argv[1]}/places.npy", made.xy)
print(json.dumps({"seconds": seconds, "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""
_FROM_ROWS = """
import json, resource, sys, time
import numpy as np
import openTSNE, sklearn.decomposition
rows = np.load(f"{sys.argv[1]}/rows.npy")
began = time.process_time()
places = openTSNE.TSNE(perplexity=64 / 3, negative_gradient_method="fft", n_jobs=1, random_state=0).fit(rows)
seconds = time.process_time() - began
np.save(f"{sys.argv[1]}/places.npy", np.asarray(places, np.float32))
print(json.dumps({"seconds": seconds, "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def run(tokens: int = _TOKENS) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _write(directory, tokens)
        ours, theirs = _measure(_OURS, directory), _measure(_FROM_ROWS, directory)
    size = f"{round(tokens / 1_000)}k"
    note = f"{tokens:,} × {_DIM}, synthetic clusters, {_K} neighbors, one thread, CPU time without imports"
    for label, side in (("map", ours), ("openTSNE from the rows", theirs)):
        _record(f"{size}: {label}: CPU time", "s", side["seconds"], note)
        _record(f"{size}: {label}: peak memory", "MB", side["peak_kb"] / 1e3, note)
        _record(f"{size}: {label}: kept of the 10 nearest", "share", side["kept"], note)
    ratio = ours["seconds"] / theirs["seconds"]
    _record(f"{size}: map / openTSNE from the rows: CPU time", "ratio", ratio, note, "< 1")


def _record(measure: str, unit: str, value: float, note: str, target: str = "") -> None:
    record("layout", measure, unit, [value], target, ("openTSNE", "numpy", "scikit-learn"), note)


def _write(directory: Path, tokens: int) -> None:
    random = np.random.default_rng(_SEED)
    centers = random.standard_normal((tokens // _CLUSTER, _DIM), np.float32)
    noise = random.standard_normal((tokens, _DIM), np.float32)
    rows, _ = normalize(centers[random.integers(0, len(centers), tokens)] + _SPREAD * noise)
    table = exact_neighbors(rows.__getitem__, np.ones(tokens, bool), _K)
    for name, array in (("rows", rows), ("ids", table.ids), ("costs", table.costs)):
        np.save(directory / f"{name}.npy", array)


def _measure(program: str, directory: Path) -> dict[str, float]:
    """CPU seconds, peak memory, and the share of the stored neighbors that the map keeps."""
    command = [sys.executable, "-c", program, str(directory)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result | {"kept": _kept(np.load(directory / "places.npy"), np.load(directory / "ids.npy"))}


def _kept(places: np.ndarray, ids: np.ndarray, k: int = 10, sample: int = 1_000) -> float:
    """The mean share of a sample's k stored neighbors among their k nearest places, by all distances."""
    tokens = np.random.default_rng(1).choice(len(places), sample, replace=False)
    shares = []
    for token in tokens.tolist():
        distances = ((places - places[token]) ** 2).sum(axis=1)
        distances[token] = np.inf
        shares.append(len({*np.argpartition(distances, k)[:k].tolist()} & {*ids[token, :k].tolist()}) / k)
    return float(np.mean(shares))


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else _TOKENS)
