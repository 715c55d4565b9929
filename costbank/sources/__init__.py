"""Where vectors come from: one registry, each source imported when it is asked for."""

from importlib import import_module

from costbank.config import BuildConfig
from costbank.sources.base import InputFile, SourcePlan, SourceVectors

__all__ = ["InputFile", "SourcePlan", "SourceVectors", "plan_source"]

_SOURCES = {
    "word2vec": "costbank.sources.word2vec.plan",
    "cooccurrence": "costbank.sources.cooccurrence.plan",
    "lm-head": "costbank.sources.lm_head.plan",
    "vocabulary": "costbank.sources.spelling.plan",
    "vectors": "costbank.sources.vectors.plan",
    "transfer": "costbank.sources.transfer.plan",
}


def plan_source(config: BuildConfig) -> SourcePlan:
    """Check what the config asks of its source, and say what will be made.

    Raises:
        CostbankError: an input is missing or unusable, a setting does not fit, a library is not installed.
    """
    return import_module(_SOURCES[config.source]).plan(config)
