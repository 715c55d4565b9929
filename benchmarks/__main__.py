"""Run every benchmark, or the named ones: `python -m benchmarks startup open_bank`."""

import sys
from importlib import import_module

BENCHMARKS = (
    "startup",
    "open_bank",
    "pull",
    "word2vec_build",
    "lm_head",
    "lm_head_table",
    "gguf_open",
    "dtypes",
    "transfer",
    "long_lines",
    "cooccurrence_build",
    "counting",
    "encoding",
    "choosing",
    "substitution",
    "deep_search",
    "layout",
    "nearest_http",
    "explorer",
    "narrow_gradient",
    "narrow_rows",
    "loss",
)

for name in sys.argv[1:] or BENCHMARKS:
    if name not in BENCHMARKS:
        raise SystemExit(f"there is no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    import_module(f"benchmarks.{name}").run()
