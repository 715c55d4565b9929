"""A config from values, checked against the settings of its source."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from costbank.config.problems import foreign_setting, unusable_config
from costbank.settings import BuildConfig
from costbank.sources.registry import SOURCE_SECTIONS, AllSettings, AnyBuild, foreign_sections, source_called

__all__ = ["build_config"]

_ADAPTER: TypeAdapter[BuildConfig] = TypeAdapter(AnyBuild)


def build_config(**values: Any) -> BuildConfig:
    """What to build, by top-level settings and sections: `build_config(source="lm-head", lm_head={"model": path})`.

    Args:
        **values: settings; a section is a mapping of its settings, or an object of its class such as `LMHeadConfig`.

    Returns:
        The config of the source: a `LMHeadBuild`, `Word2VecBuild`, …

    Raises:
        UsageError: a setting does not exist, belongs to another source, or has a value that it cannot have; the
            message names each.
    """
    if "source" in values:
        values["source"] = source_called(values["source"])
    try:
        every = AllSettings.model_validate(values)
    except ValidationError as error:
        raise unusable_config(error, values) from None
    own = {name: value for name, value in values.items() if name not in foreign_sections(every.source)}
    for section in sorted(set(values) - set(own)):
        _refuse_changes(every, section)
    return _ADAPTER.validate_python(own)


def _refuse_changes(every: BuildConfig, section: str) -> None:
    """Refuse settings of another source that are not at their defaults: they would have no effect."""
    values = getattr(every, section)
    for name, field in type(values).model_fields.items():
        if getattr(values, name) != field.get_default(call_default_factory=True):
            sources = [source for source, own in SOURCE_SECTIONS.items() if section in own]
            raise foreign_setting(f"{section}.{name}", sources, every.source)
