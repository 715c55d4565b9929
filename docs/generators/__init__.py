"""Generate pages of the documentation from the code and from measured figures.

`python -m docs.generators` writes them; `python -m docs.generators --check` names those that are out of date.
"""
