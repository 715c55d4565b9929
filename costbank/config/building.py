"""Make a config from values, checked against the settings of its source."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from costbank.config.problems import foreign_setting, invalid_config
from costbank.settings import BuildConfig
from costbank.sources.registry import SOURCE_SECTIONS, AllSettings, AnyBuild, canonical_source, foreign_sections

__all__ = ["build_config"]

_ADAPTER: TypeAdapter[BuildConfig] = TypeAdapter(AnyBuild)


def build_config(**values: Any) -> BuildConfig:
    """A config from top-level settings and sections: `build_config(source="lm-head", lm_head={"model": path})`.

    Args:
        **values: settings; a section is a mapping of its settings, or an object of its class such as `LMHeadConfig`.

    Returns:
        The config of the source: a `LMHeadBuild`, `Word2VecBuild`, …

    Raises:
        UsageError: a setting does not exist, belongs to another source, or has an invalid value; the message names
            each such setting.
    """
    if "source" in values:
        values["source"] = canonical_source(values["source"])
    try:
        config = AllSettings.model_validate(values)
    except ValidationError as error:
        raise invalid_config(error, values) from None
    own_values = {name: value for name, value in values.items() if name not in foreign_sections(config.source)}
    for section in sorted(set(values) - set(own_values)):
        _check_defaults(config, section)
    return _ADAPTER.validate_python(own_values)


def _check_defaults(config: BuildConfig, section: str) -> None:
    """Check that a section of another source has its defaults: other values would have no effect."""
    values = getattr(config, section)
    for name, field in type(values).model_fields.items():
        if getattr(values, name) != field.get_default(call_default_factory=True):
            sources = [source for source, sections in SOURCE_SECTIONS.items() if section in sections]
            raise foreign_setting(f"{section}.{name}", sources, config.source)
