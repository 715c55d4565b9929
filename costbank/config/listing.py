"""Lists of settings with their defaults, values and meanings."""

from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from costbank.config.descriptions import accepted_values, value_text
from costbank.config.identity import settings
from costbank.errors import UsageError
from costbank.settings import Execution, SpokenDefault
from costbank.sources.registry import SOURCE_SECTIONS, canonical_source
from costbank.suggestions import closest

__all__ = ["Setting", "list_settings", "settings_table"]


@dataclass(frozen=True)
class Setting:
    """The description of a setting.

    Attributes:
        path: such as `word2vec.epochs`.
        default: in words; "needed" if there is no default, "–" if the setting is unset by default.
        takes: the accepted values, in words.
        meaning: what the setting does.
        sources: the sources that have it.
        in_id: whether a bank's id depends on it.
    """

    path: str
    default: str
    takes: str
    meaning: str
    sources: tuple[str, ...]
    in_id: bool


def list_settings(source: str | None = None) -> list[Setting]:
    """All settings in the order of the config, or those of one source.

    Raises:
        UsageError: there is no such source.
    """
    source = canonical_source(source)
    if source is not None and source not in SOURCE_SECTIONS:
        suggestion = closest(source, SOURCE_SECTIONS)
        raise UsageError(
            f"there is no source {source!r}",
            f"did you mean {suggestion}?" if suggestion else f"the sources are {', '.join(SOURCE_SECTIONS)}",
        )
    described = [_setting(path, field) for path, field in settings().items()]
    return [setting for setting in described if source is None or source in setting.sources]


def settings_table() -> str:
    """All settings as a table in Markdown; an asterisk marks those that are not part of a bank's id."""
    rows = ["| setting | default | values | meaning |", "|---|---|---|---|"]
    for setting in list_settings():
        mark = "" if setting.in_id else " *"
        cells = (f"`{setting.path}`{mark}", setting.default, setting.takes, setting.meaning)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _setting(path: str, field: FieldInfo) -> Setting:
    section = path.rpartition(".")[0]
    owners = tuple(source for source, sections in SOURCE_SECTIONS.items() if section in sections)
    default = next((rule.words for rule in field.metadata if isinstance(rule, SpokenDefault)), "")
    return Setting(
        path=path,
        default=default or _default(field),
        takes=accepted_values(field),
        meaning=field.description or "",
        sources=owners or tuple(SOURCE_SECTIONS),
        in_id=Execution not in field.metadata,
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value: Any = field.get_default(call_default_factory=True)  # pyright: ignore[reportCallIssue] -- no validated data is needed
    if value is None or value == "":
        return "–"
    return str(list(value)) if isinstance(value, tuple) else value if isinstance(value, str) else value_text(value)
