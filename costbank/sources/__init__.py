"""Where vectors come from: a folder for each source, with its settings and its plan."""

from importlib import import_module

from costbank.settings import BuildConfig
from costbank.sources.base import InputFile, SourcePlan, SourceVectors

__all__ = ["InputFile", "SourcePlan", "SourceVectors", "plan_source"]


def plan_source(config: BuildConfig) -> SourcePlan:
    """Check what the config asks of its source, and say what will be made.

    Raises:
        CostbankError: an input is missing or unusable, a setting does not fit, a library is not installed.
    """
    # The plan is next to the settings, and is imported with its libraries when it is needed.
    return import_module(f"{type(config).__module__.rpartition('.')[0]}.plan").plan(config)
