"""A config from a TOML file, settings by path and assignments, with errors that name each setting."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from costbank.config.building import build_config
from costbank.config.identity import settings
from costbank.config.problems import misplaced
from costbank.corpus.readers.inputs import STANDARD_INPUT
from costbank.encodings import certain_encoding, without_mark
from costbank.errors import InputNotFoundError, UsageError
from costbank.settings import BuildConfig, Location, Reference
from costbank.sources.registry import SOURCE_SECTIONS, source_called

__all__ = ["load_config"]


def load_config(
    given: Mapping[str, Any] | Mapping[tuple[str, ...], Any], assignments: Sequence[str] = (), file: Path | None = None
) -> BuildConfig:
    """A config from a TOML file, then settings by path, then `path=value` assignments; the later win.

    A setting is given by its path, or by several where the source decides which of them is meant.

    Relative paths in the file are relative to the file. The value of an assignment is read as TOML where it is
    TOML (`3`, `false`, `["a", "b"]`), else as text.

    Raises:
        UsageError: a setting does not exist or its value does not fit; the message names each.
        InputNotFoundError: the file does not exist.
    """
    values = _read_toml(file) if file else {}
    later = [_assignment(text) for text in assignments]
    by_paths = {(path,) if isinstance(path, str) else path: value for path, value in given.items()}
    source = dict(later).get("source") or by_paths.get(("source",)) or values.get("source")
    own = SOURCE_SECTIONS.get(str(source_called(source)), ())
    for paths, value in by_paths.items():
        _assign(values, next((path for path in paths if path.partition(".")[0] in own), paths[0]), value)
    for path, value in later:
        _assign(values, path, value)
    return build_config(**values)


def _assignment(text: str) -> tuple[str, Any]:
    path, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not path:
        raise UsageError(f"--set {text!r} sets nothing", "write it as --set word2vec.epochs=10")
    return path, _value(path, value)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        content = without_mark(file.read_bytes())
        if encoding := certain_encoding(content):
            raise UsageError(f"{file} is {encoding.name} text, and TOML is UTF-8", encoding.conversion(str(file)))
        values = tomllib.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise InputNotFoundError(f"the config file {file} does not exist", "check the path") from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a folder, not a TOML file", "name the file in it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file} is not a TOML file: {error}", "`costbank settings` lists what may stand in it"
        ) from None
    for path, field in settings().items():
        *sections, name = path.split(".")
        place: Any = values
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or name not in place:
            continue
        is_reference = Reference in field.metadata and "/" in str(place[name])
        if "Path" in str(field.annotation) or Location in field.metadata or is_reference:
            place[name] = _relative_to(file, place[name])
    return values


def _relative_to(file: Path, given: Any) -> Any:
    """Paths in a config file are relative to it."""
    if isinstance(given, list):
        return [_relative_to(file, path) for path in given]
    is_path = isinstance(given, str) and given != STANDARD_INPUT and "://" not in given
    return str(file.parent / given) if is_path else given


def _value(path: str, text: str) -> Any:
    """The value of an assignment: TOML, but names and paths are taken as they stand, whatever they look like."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    field = settings().get(path)
    kinds = (get_args(field.annotation) or (field.annotation,)) if field else ()
    takes_text = (str in kinds or Path in kinds) and field is not None and get_origin(field.annotation) is not tuple
    return text if takes_text and not isinstance(value, str) else value


def _assign(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise misplaced(path, section)
    values[name] = value
