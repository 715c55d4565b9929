"""How the encoding time of BytePiece grows with the length of a line. BytePiece does not split lines."""

import time

from benchmarks.corpora import bytepiece_model, english
from benchmarks.record import record
from costbank.tokenizers import load_tokenizer

__all__ = ["run"]

_RUNS, _SHORT, _LONG = 5, 250_000, 4_000_000


def run() -> None:
    tokenizer = load_tokenizer(bytepiece_model())
    text = english().read_text("utf-8")[:_LONG].replace("\n", " ")
    ratios = []
    for _ in range(_RUNS):
        seconds = []
        for size in (_SHORT, _LONG):
            began = time.perf_counter()
            tokenizer.encode([text[:size]])
            seconds.append((time.perf_counter() - began) / size)
        ratios.append(seconds[1] / seconds[0])
    note = "bytepiece_80k.model; time a character of a line of 4,000,000 / of one of 250,000"
    record("long_lines", "4 MB line / 0.25 MB line", "ratio", ratios, "<= 1.5", ("tokenizers",), note)
