"""Where vectors come from: one registry, each source imported when it is asked for."""

from importlib import import_module

from costbank.sources.base import InputFile, Source, SourceVectors

__all__ = ["InputFile", "Source", "SourceVectors", "get_source"]

_SOURCES = {"word2vec": "costbank.sources.word2vec:Word2VecSource"}


def get_source(name: str) -> Source:
    """The source of this name, one of those that the config allows."""
    module, _, attribute = _SOURCES[name].partition(":")
    return getattr(import_module(module), attribute)()
