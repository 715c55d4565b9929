"""A module per claim. `python -m benchmarks` runs them all and appends rows to data/bench/results.csv."""
