"""Find the plan of a config's source."""

from importlib import import_module

from costbank.errors import UsageError
from costbank.settings import BuildConfig
from costbank.sources.base import SourcePlan
from costbank.sources.registry import SOURCES

__all__ = ["plan_source"]


def plan_source(config: BuildConfig) -> SourcePlan:
    """Check all inputs of the config's source before any work, and return the plan.

    Raises:
        UsageError: the config is not the config of a source.
        CostbankError: an input is missing or unusable, settings contradict each other, or a library is not installed.
    """
    own = SOURCES.get(config.source) if isinstance(config, BuildConfig) else None
    if own is None or not isinstance(config, own):
        raise UsageError(
            f"a {type(config).__name__} cannot be built: it is not the config of a source",
            "make it with build_config(source=…)",
        )
    # The plan's module is next to the settings. It is imported only now, because it imports the libraries it needs.
    return import_module(f"{own.__module__.rpartition('.')[0]}.plan").plan(config)
