"""One script a claim; `python -m benchmarks` runs them all and appends rows to data/bench/results.csv."""
