"""The neighbor table and the index of a large head: time, memory, and recall against the exact table."""

import tempfile
from pathlib import Path

import costbank
from benchmarks.lm_head import build_command, make_head
from benchmarks.processes import watched
from benchmarks.record import record

__all__ = ["run"]


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_head(folder / "model")
        usage = watched(build_command(folder, "near"))
        bank = costbank.open_bank("near", folder / "store")
        facts, libraries = bank.manifest.neighbors, ("numpy", "torch", "faiss-cpu")
        workload = f"the head of lm_head with {facts.k} neighbors and an index; {facts.method}"
        record("lm_head_table", "build with neighbors", "s", [usage.seconds], "", libraries, workload)
        record(
            "lm_head_table", "of that, the table", "s", [bank.manifest.seconds["neighbors"]], "", libraries, workload
        )
        record("lm_head_table", "peak memory of its own", "MB", [usage.own_mb], "< 1500", libraries, workload)
        mapped = f"{workload}; with the bank's file, which is mapped"
        record("lm_head_table", "peak resident memory", "MB", [usage.memory_mb], "", libraries, mapped)
        note = f"{workload}; {facts.sampled} sampled rows against the exact table"
        record("lm_head_table", f"recall@{facts.recall_at}", "share", [facts.recall], ">= 0.99", libraries, note)
        record("lm_head_table", f"recall@{facts.k}", "share", [facts.recall_of_all], "", libraries, note)
