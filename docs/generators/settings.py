"""The reference of a build's settings, made from `costbank.config`."""

from costbank.config import settings_table

__all__ = ["page"]

_ABOVE = """# Settings of a build

Set them in a TOML file (`costbank build --config my.toml`; relative paths in it are relative to the file) or with
`--set name=value`. A leading `~` in a path means the home directory. The command line overrides the file, and `--set`
overrides the other options. `costbank settings SOURCE` lists the settings of one source. A build refuses settings of
another source.

"""

_BELOW = """
Settings marked * decide only where or how fast the work is done. They are not part of the bank's id.
"""


def page() -> str:
    """Every setting with its default, its values and its meaning."""
    return _ABOVE + settings_table() + _BELOW
