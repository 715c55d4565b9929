"""The quality of a transfer to another tokenizer, by each method: new rows compared with known rows.

A Word2Vec bank of 16,000 unigram pieces is transferred to 16,000 BPE pieces of the same English text. The guide is a
Word2Vec bank of the BPE pieces after one epoch.
"""

import tempfile
from pathlib import Path

import costbank
from benchmarks.corpora import english, english_model
from benchmarks.record import record
from costbank.bank import Bank
from costbank.config import load_config
from costbank.tokenizers.train import train_sentencepiece

__all__ = ["run"]

_METHODS = {
    "mean over the donor's pieces": {"transfer.method": "segmentation"},
    "pursuit in spelling": {"transfer.method": "omp"},
    "pursuit in a guide": {"transfer.method": "omp", "transfer.guide": "guide"},
}
_MEASURES = {
    "held_out_cosine": "cosine to the true row",
    "held_out_chance_cosine": "the same by chance",
    "held_out_overlap": "overlap@10",
}


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        donor, new = english_model(folder), train_sentencepiece([english()], folder / "bpe16k.model", 16_000, "bpe")
        _word2vec(folder, donor, "donor", 5)
        _word2vec(folder, new, "guide", 1)
        for method, settings in _METHODS.items():
            config = {"source": "transfer", "tokenizer": new, "transfer.donor": "donor", **settings}
            facts = _build(folder, "moved", config).manifest.facts
            note = (
                f"{method}; english.txt, 16k unigram to 16k BPE pieces, {facts['exact']:,} exact, "
                f"{facts['combined']:,} sums; {facts['held_out']} held out"
            )
            for fact, measure in _MEASURES.items():
                record("transfer", measure, "share", [facts[fact]], "", ("gensim", "sentencepiece", "numpy"), note)


def _word2vec(folder: Path, tokenizer: Path, name: str, epochs: int) -> None:
    config = {"source": "word2vec", "tokenizer": tokenizer, "corpus.files": [english()], "word2vec.epochs": epochs}
    _build(folder, name, config)


def _build(folder: Path, name: str, config: dict[str, object]) -> Bank:
    output = {"name": name, "store": folder / "store", "cache": folder / "cache", "neighbors.k": 10}
    return costbank.build(load_config(config | output))
