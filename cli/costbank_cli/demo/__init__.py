"""The demonstration: from text that every installation has to training with and without the loss."""

from costbank_cli.demo.journey import DemoOptions, DemoResult, run_demo

__all__ = ["DemoOptions", "DemoResult", "run_demo"]
