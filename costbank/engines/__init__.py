"""What runs one function over many shards: processes of this machine, or a Ray cluster."""

from costbank.engines.base import Engine, EngineKind, Report
from costbank.engines.opening import open_engine

__all__ = ["Engine", "EngineKind", "Report", "open_engine"]
