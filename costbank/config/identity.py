"""The part of a config that a bank's id covers."""

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from costbank.settings import BuildConfig, Execution
from costbank.sources.registry import AllSettings

__all__ = ["semantic_config", "settings"]

_NAMES_IN_IDS = {"spelling": "vocabulary", "vectors": "vector_file", "storage": "vectors"}
"""Sections whose names have changed since ids were first made: ids keep the first ones."""
_SOURCES_IN_IDS = {"spelling": "vocabulary"}


def semantic_config(config: BuildConfig) -> dict[str, Any]:
    """What is to be built, without paths and settings of the machine, and without settings that have no effect.

    A source's config has no settings of other sources, so a source that is added later changes no id.
    """
    content = _semantic(config, config.without_effect())
    content = {_NAMES_IN_IDS.get(name, name): value for name, value in content.items()}
    return content | {"source": _SOURCES_IN_IDS.get(config.source, config.source)}


def _semantic(model: BaseModel, without_effect: set[str], prefix: str = "") -> dict[str, Any]:
    content = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if Execution in field.metadata or prefix + name in without_effect:
            continue
        content[name] = _semantic(value, without_effect, f"{prefix}{name}.") if isinstance(value, BaseModel) else value
    return content


def settings(model: type[BaseModel] = AllSettings, prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting by its path, in the order of the config."""
    by_path = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            by_path |= settings(field.annotation, f"{prefix}{name}.")
        else:
            by_path[prefix + name] = field
    return by_path
