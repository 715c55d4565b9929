"""What runs one function over many shards: processes of this machine, or a Ray cluster."""

from costbank.engines.base import Engine, EngineKind, Report
from costbank.engines.local import run_in_child
from costbank.engines.opening import open_engine

__all__ = ["Engine", "EngineKind", "Report", "open_engine", "run_in_child"]
