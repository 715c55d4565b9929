"""All sources: the union of their configs, told apart by `source`, and what follows from it."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, create_model

from costbank.settings import BuildConfig
from costbank.sources.cooccurrence.settings import CooccurrenceBuild
from costbank.sources.lm_head.settings import LMHeadBuild
from costbank.sources.spelling.settings import SpellingBuild
from costbank.sources.transfer.settings import TransferBuild
from costbank.sources.vectors.settings import VectorsBuild
from costbank.sources.word2vec.settings import Word2VecBuild

__all__ = ["SOURCES", "SOURCE_SECTIONS", "AllSettings", "AnyBuild", "foreign_sections", "source_called"]

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
"""Every setting of every source, for lists of them and for errors that name each."""


def foreign_sections(source: str) -> set[str]:
    """The sections of settings that belong to other sources than this."""
    return {section for own in SOURCE_SECTIONS.values() for section in own} - set(SOURCE_SECTIONS[source])


def source_called(name: Any) -> Any:
    """The source that goes by a name; the name itself where there is none."""
    return _OTHER_NAMES.get(name, name) if isinstance(name, str) else name
