"""The quality of a bank's vectors, and what to do where it is poor.

    examine ─▶ rows        one pass: mean, isotropy, saturated rows, a digest of each
               outliers    lengths before normalising, nearness to rows that nothing trained
               likeness    tokens that share a row, or all but share it
               hubness     tokens that are near too many others
               wordforms   whether forms of a word lie near each other: the only test of more than geometry
               findings    what is worth saying of all that, with tokens named
               advice      what to do about it, by the bank's source

It reads a bank and nothing else. Whether near tokens mean the same is for `costbank.analysis.evaluation` to say.
"""

from costbank.analysis.health.examine import health
from costbank.analysis.health.result import (
    Duplicates,
    Evidence,
    Finding,
    FormPairs,
    Health,
    Hubness,
    IdRange,
    Isotropy,
    NamedGroup,
    NamedToken,
    Norms,
    Quality,
    Saturation,
    Severity,
    UnderTraining,
    WordForms,
)

__all__ = [
    "Duplicates",
    "Evidence",
    "Finding",
    "FormPairs",
    "Health",
    "Hubness",
    "IdRange",
    "Isotropy",
    "NamedGroup",
    "NamedToken",
    "Norms",
    "Quality",
    "Saturation",
    "Severity",
    "UnderTraining",
    "WordForms",
    "health",
]
