"""All sources: the union of their configs by the key `source`, and tables that follow from it."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, create_model

from costbank.settings import BuildConfig
from costbank.sources.cooccurrence.settings import CooccurrenceBuild
from costbank.sources.lm_head.settings import LMHeadBuild
from costbank.sources.spelling.settings import SpellingBuild
from costbank.sources.transfer.settings import TransferBuild
from costbank.sources.vectors.settings import VectorsBuild
from costbank.sources.word2vec.settings import Word2VecBuild

__all__ = ["SOURCES", "SOURCE_SECTIONS", "AllSettings", "AnyBuild", "canonical_source", "foreign_sections"]

AnyBuild = Annotated[
    Word2VecBuild | CooccurrenceBuild | LMHeadBuild | SpellingBuild | VectorsBuild | TransferBuild,
    Field(discriminator="source"),
]

SOURCES: dict[str, type[BuildConfig]] = {
    config.model_fields["source"].default: config for config in get_args(get_args(AnyBuild)[0])
}
"""The config of each source."""

SOURCE_SECTIONS = {
    source: tuple(name for name in config.model_fields if name not in BuildConfig.model_fields)
    for source, config in SOURCES.items()
}
"""The sections of settings that belong to each source."""

_OTHER_NAMES = {"vocabulary": "spelling"}

_FIELDS: dict[str, Any] = {
    section: (config.model_fields[section].annotation, config.model_fields[section])
    for source, config in SOURCES.items()
    for section in SOURCE_SECTIONS[source]
}
_NAMES: Any = Literal[tuple(SOURCES)]

AllSettings = create_model(
    "AllSettings", __base__=BuildConfig, source=(_NAMES, Field(description="where vectors come from")), **_FIELDS
)
"""All settings of all sources, for lists of settings and for error messages."""


def foreign_sections(source: str) -> set[str]:
    """The sections of settings that belong only to other sources."""
    return {section for own in SOURCE_SECTIONS.values() for section in own} - set(SOURCE_SECTIONS[source])


def canonical_source(name: Any) -> Any:
    """Replace an alias of a source with the source's name; any other value is returned unchanged."""
    return _OTHER_NAMES.get(name, name) if isinstance(name, str) else name
