"""Whether a bank's vectors deserve trust, and what to do where they do not.

    examine ─▶ rows        one pass: mean, isotropy, saturated rows, a digest of each
               outliers    lengths before normalising, nearness to rows that nothing trained
               likeness    tokens that share a row, or all but share it
               hubness     tokens that are near too many others
               findings    what is worth saying of all that, with tokens named and advice

It reads a bank and nothing else. Whether near tokens mean the same is for `costbank.analysis.evaluation` to say.
"""

from costbank.analysis.health.examine import health
from costbank.analysis.health.result import (
    Duplicates,
    Finding,
    Health,
    Hubness,
    Isotropy,
    NamedGroup,
    NamedToken,
    Norms,
    Saturation,
    Severity,
    UnderTraining,
)

__all__ = [
    "Duplicates",
    "Finding",
    "Health",
    "Hubness",
    "Isotropy",
    "NamedGroup",
    "NamedToken",
    "Norms",
    "Saturation",
    "Severity",
    "UnderTraining",
    "health",
]
