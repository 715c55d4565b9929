"""The sources of vectors: one folder per source, with its settings and its plan."""

from typing import TYPE_CHECKING

from costbank.lazy import lazy_names

if TYPE_CHECKING:
    from costbank.sources.base import InputFile, SourcePlan, SourceVectors
    from costbank.sources.planning import plan_source

__all__ = ["InputFile", "SourcePlan", "SourceVectors", "plan_source"]

if not TYPE_CHECKING:  # A type checker would accept any name.
    __getattr__, __dir__ = lazy_names(
        __name__,
        base="InputFile SourcePlan SourceVectors",
        planning="plan_source",
    )
