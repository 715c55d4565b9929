"""The quality of a bank's vectors, and what to do if it is poor.

    report ─▶ rows         one pass: mean, isotropy, saturated rows, a digest of each row
              outliers     lengths before normalization, nearness to untrained rows
              duplicates   tokens with equal rows, or nearly equal ones
              hubness      tokens that are near too many others
              wordforms    whether forms of a word lie near each other: the only test of more than geometry
              findings     conclusions from these measures, with the tokens that they are about
              advice       what to do about a finding, by the bank's source

The report needs only the bank. `costbank.analysis.evaluation` tests whether near tokens have similar meanings.
"""

from costbank.analysis.health.report import health
from costbank.analysis.health.result import (
    Duplicates,
    Evidence,
    Finding,
    FormPairs,
    HealthReport,
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
    "HealthReport",
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
