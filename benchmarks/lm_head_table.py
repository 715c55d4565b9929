"""The neighbor table and index of a large head: their time and memory, and how much of the exact table is in them."""

import tempfile
from pathlib import Path

import costbank
from benchmarks.lm_head import build, make_head
from benchmarks.record import record

__all__ = ["run"]


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make_head(place / "model")
        seconds, peak = build(place, "near")
        bank = costbank.open_bank("near", place / "store")
        facts, libraries = bank.manifest.neighbors, ("numpy", "torch", "faiss-cpu")
        workload = f"the head of lm_head with {facts.k} neighbors and an index; {facts.method}"
        record("lm_head_table", "build with neighbors", "s", [seconds], "", libraries, workload)
        record(
            "lm_head_table", "of that, the table", "s", [bank.manifest.seconds["neighbors"]], "", libraries, workload
        )
        record("lm_head_table", "peak memory with neighbors", "MB", [peak], "< 1500", libraries, workload)
        note = f"{workload}; {facts.sampled} sampled rows against the exact table"
        record("lm_head_table", f"recall@{facts.recall_at}", "share", [facts.recall], ">= 0.99", libraries, note)
        record("lm_head_table", f"recall@{facts.k}", "share", [facts.recall_of_all], "", libraries, note)
