"""The demonstration: from the docstrings of installed packages to training with and without EMOLoss."""

from costbank_cli.demo.workflow import DemoOptions, DemoResult, run_demo

__all__ = ["DemoOptions", "DemoResult", "run_demo"]
