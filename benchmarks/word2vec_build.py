"""Compare a Word2Vec build with gensim alone: time, and the quality of the vectors.

gensim gets the documents as lists of strings, and only its own time is measured. The time of the build includes
everything: process start, encoding, training, neighbors, index, writing. Both run in turns, each in its own process.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import costbank
from benchmarks.corpora import english, english_model
from benchmarks.record import record
from costbank.analysis.evaluation import word_similarity
from costbank.analysis.wordlists import english_judgments

__all__ = ["run"]

_RUNS = 3
_SETTINGS = {"sg": 1, "window": 5, "negative": 5, "epochs": 5, "seed": 1, "workers": 2}

_EVALUATIONS = (("WordSim-353", ">= 0.38"), ("SimLex-999", ""))

_GENSIM = """
import sys, time
import sentencepiece
from gensim.models import Word2Vec
processor = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
lines = [line for line in open(sys.argv[2], encoding="utf-8").read().split("\\n") if line.strip()]
sentences = [[str(i) for i in ids] for ids in processor.encode(lines, num_threads=2)]
began = time.perf_counter()
Word2Vec(sentences=sentences, vector_size=128, **{settings})
print(time.perf_counter() - began)
"""


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = english_model(folder)
        ours, gensims, ratios = [], [], []
        for number in range(_RUNS):
            ours.append(_build_seconds(model, folder / f"cache{number}", folder / "store"))
            gensims.append(_gensim_seconds(model))
            ratios.append(ours[-1] / gensims[-1])
        libraries = ("gensim", "sentencepiece", "faiss-cpu", "numpy")
        workload = "english.txt, 16k pieces, sg, 128 dimensions, 5 epochs, 2 workers"
        record("word2vec_build", "whole build", "s", ours, "", libraries, workload)
        record("word2vec_build", "gensim Word2Vec on ready lists", "s", gensims, "", libraries, workload)
        record("word2vec_build", "build / gensim", "ratio", ratios, "<= 1.15", libraries, workload)
        bank = costbank.open_bank("english", folder / "store")
        judgments = english_judgments()
        for measure, target in _EVALUATIONS:
            agreement = word_similarity(bank, judgments[measure])
            pairs = f"{agreement.pairs} of {agreement.pairs_given} pairs; {workload}"
            record("word2vec_build", f"{measure} Spearman", "rho", [agreement.rho], target, libraries, pairs)


def _build_seconds(model: Path, cache: Path, store: Path) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "costbank_cli", "build", "--source", "word2vec", "--corpus", str(english()),
         "--tokenizer", str(model), "--name", "english", "--store", str(store), "--cache", str(cache),
         "--set", "word2vec.workers=2"], check=True,
    )  # fmt: skip
    return time.perf_counter() - began


def _gensim_seconds(model: Path) -> float:
    code = _GENSIM.replace("{settings}", repr(_SETTINGS))
    command = [sys.executable, "-c", code, str(model), str(english())]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    run()
