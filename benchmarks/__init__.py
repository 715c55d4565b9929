"""One module for each benchmark. `python -m benchmarks` runs them and appends rows to data/bench/results.csv."""
