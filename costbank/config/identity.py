"""The part of a config that a bank's id covers."""

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from costbank.settings import BuildConfig, Execution
from costbank.sources.registry import AllSettings

__all__ = ["semantic_config", "semantic_settings", "settings"]

_NAMES_IN_IDS = {"spelling": "vocabulary", "vectors": "vector_file", "storage": "vectors"}
"""The original names of sections that were renamed. Ids are computed with the original names."""
_SOURCES_IN_IDS = {"spelling": "vocabulary"}


def semantic_config(config: BuildConfig) -> dict[str, Any]:
    """The settings that define the content of a bank: without paths, settings of the machine, and those without effect.

    A source's config has no settings of other sources, so a new source does not change ids.
    """
    content = _semantic(config, config.without_effect())
    content = {_NAMES_IN_IDS.get(name, name): value for name, value in content.items()}
    return content | {"source": _SOURCES_IN_IDS.get(config.source, config.source)}


def semantic_settings(content: dict[str, Any]) -> dict[str, Any]:
    """The settings in a semantic config by their paths and current names, without those that are not set."""
    sections = {original: name for name, original in _NAMES_IN_IDS.items()}
    sources = {original: name for name, original in _SOURCES_IN_IDS.items()}
    values = {}
    for name, value in content.items():
        if isinstance(value, dict):
            values |= {f"{sections.get(name, name)}.{key}": inner for key, inner in value.items()}
        else:
            values[name] = sources.get(value, value) if name == "source" else value
    return {path: value for path, value in values.items() if value is not None}


def _semantic(model: BaseModel, without_effect: set[str], prefix: str = "") -> dict[str, Any]:
    content = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if Execution in field.metadata or prefix + name in without_effect:
            continue
        content[name] = _semantic(value, without_effect, f"{prefix}{name}.") if isinstance(value, BaseModel) else value
    return content


def settings(model: type[BaseModel] = AllSettings, prefix: str = "") -> dict[str, FieldInfo]:
    """All settings of a config by their paths, in the order of the config."""
    fields = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            fields |= settings(field.annotation, f"{prefix}{name}.")
        else:
            fields[prefix + name] = field
    return fields
