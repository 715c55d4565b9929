"""The demo: from the docstrings of installed packages to a bank, and to training with it and without it."""

from costbank_cli.demo.workflow import DemoOptions, DemoResult, run_demo

__all__ = ["DemoOptions", "DemoResult", "run_demo"]
