"""The demonstration: the whole journey from text to EMO training steps, on text that every installation has."""

from costbank_cli.demo.journey import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
