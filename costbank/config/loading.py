"""Make a config from a TOML file, settings by path and assignments, with errors that name each setting."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from costbank.config.building import build_config
from costbank.config.identity import settings
from costbank.config.problems import not_a_section
from costbank.corpus.readers.inputs import STANDARD_INPUT
from costbank.encodings import certain_encoding, without_mark
from costbank.errors import InputNotFoundError, UsageError
from costbank.settings import BuildConfig, expand_home, is_location
from costbank.sources.registry import SOURCE_SECTIONS, canonical_source

__all__ = ["load_config"]


def load_config(
    options: Mapping[str, Any] | Mapping[tuple[str, ...], Any],
    assignments: Sequence[str] = (),
    file: Path | None = None,
) -> BuildConfig:
    """A config from a TOML file, then settings by path, then `path=value` assignments; later values win.

    Args:
        options: values by the path of a setting. If a key has several paths, the one that belongs to the source is set.
        assignments: such as `word2vec.epochs=10`. A value is read as TOML if possible (`3`, `false`, `["a", "b"]`),
            otherwise as text.
        file: the TOML file; relative paths in it are relative to its directory.

    Raises:
        UsageError: a setting does not exist or its value is invalid; the message names each such setting.
        InputNotFoundError: the file does not exist.
    """
    values = _read_toml(file) if file else {}
    assigned = [_parse_assignment(text) for text in assignments]
    by_paths = {(path,) if isinstance(path, str) else path: value for path, value in options.items()}
    source = dict(assigned).get("source") or by_paths.get(("source",)) or values.get("source")
    own_sections = SOURCE_SECTIONS.get(str(canonical_source(source)), ())
    for paths, value in by_paths.items():
        _assign(values, next((path for path in paths if path.partition(".")[0] in own_sections), paths[0]), value)
    for path, value in assigned:
        _assign(values, path, value)
    return build_config(**values)


def _parse_assignment(text: str) -> tuple[str, Any]:
    path, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not path:
        raise UsageError(f"--set {text!r} sets nothing", "write it as --set word2vec.epochs=10")
    return path, _parse_value(path, value)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        content = without_mark(file.read_bytes())
        if encoding := certain_encoding(content):
            raise UsageError(
                f"{file} is {encoding.name} text, but TOML must be UTF-8",
                f"convert it: {encoding.conversion(str(file))}",
            )
        values = tomllib.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise InputNotFoundError(f"the config file {file} does not exist", "check the path") from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a folder, not a TOML file", "give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not a TOML file: {error}", "`costbank settings` lists the settings") from None
    for path, field in settings().items():
        *sections, name = path.split(".")
        table: Any = values
        for section in sections:
            table = table.get(section) if isinstance(table, dict) else None
        if not isinstance(table, dict) or name not in table:
            continue
        if is_location(field, table[name]):
            table[name] = _resolve(file, table[name])
    return values


def _resolve(file: Path, value: Any) -> Any:
    """A value of a config file in which relative paths are resolved against the file's directory."""
    if isinstance(value, list):
        return [_resolve(file, path) for path in value]
    is_path = isinstance(value, str) and value != STANDARD_INPUT and "://" not in value
    return str(file.parent / expand_home(value)) if is_path else value


def _parse_value(path: str, text: str) -> Any:
    """The value of an assignment, parsed as TOML; a setting for text or a path gets the text itself."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    field = settings().get(path)
    types = (get_args(field.annotation) or (field.annotation,)) if field else ()
    takes_text = (str in types or Path in types) and field is not None and get_origin(field.annotation) is not tuple
    return text if takes_text and not isinstance(value, str) else value


def _assign(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise not_a_section(path, section)
    values[name] = value
