"""The page of a build's settings, from `costbank.config`."""

from costbank.config import settings_table

__all__ = ["page"]

_ABOVE = """# Settings of a build

Every setting can stand in a TOML file (`costbank build --config my.toml`; relative paths in it are relative to the
file) or in `--set name=value`. The command line overrides the file, and `--set` overrides the other options.
`costbank settings SOURCE` lists the settings of one source; settings of another source are refused by name.

"""

_BELOW = """
Settings marked * say where the work is done or how fast; they are not part of the bank's id.
"""


def page() -> str:
    """Every setting with its default, its values and its meaning."""
    return _ABOVE + settings_table() + _BELOW
