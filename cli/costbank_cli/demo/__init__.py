"""The demo: builds a bank from the docstrings of installed packages, and trains with and without it."""

from costbank_cli.demo.workflow import DemoOptions, DemoResult, run_demo

__all__ = ["DemoOptions", "DemoResult", "run_demo"]
