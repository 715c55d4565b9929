"""Descriptions of values in words, for people: the values that a setting accepts, and single values."""

from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo

__all__ = ["accepted_values", "choices", "join_or", "value_text"]

_MOST_CHARACTERS = 60


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The names that a setting accepts; empty if it accepts other values."""
    value_type = _value_type(field.annotation)
    return get_args(value_type) if get_origin(value_type) is Literal else ()


def accepted_values(field: FieldInfo) -> str:
    """The values that a setting accepts, such as "a whole number from 1 to 256"."""
    value_type = _value_type(field.annotation)
    if get_origin(value_type) is Literal:
        return join_or(get_args(value_type))
    if get_origin(value_type) is tuple:
        return 'a list of strings, such as ["first", "second"]'
    if value_type is ByteSize:
        least = [ByteSize(rule.ge).human_readable() for rule in field.metadata if isinstance(rule, Ge)]  # pyright: ignore[reportArgumentType] -- bytes here
        return "a size such as 4GB" + "".join(f", {size} or more" for size in least)
    if value_type in (int, float):
        is_whole = value_type is int
        return f"a {'whole ' if is_whole else ''}number{_bounds(field, is_whole)}"
    if value_type is bool:
        return "true or false"
    if value_type is SecretStr:
        least = next((rule.min_length for rule in field.metadata if isinstance(rule, MinLen)), 0)
        return f"a string of {least} character{'s' if least > 1 else ''} or more" if least else "a string"
    return "a path" if value_type is Path else "a string"


def join_or(names: Sequence[str]) -> str:
    """Names in a sentence: `a, b or c`."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)


def value_text(value: object) -> str:
    """A value as a person would type it, at most 60 characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, str | list | tuple | dict) else str(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def _value_type(annotation: Any) -> Any:
    """The type of a setting's values, without None."""
    if get_origin(annotation) in (Union, UnionType):
        return next(part for part in get_args(annotation) if part is not NoneType)
    return annotation


def _bounds(field: FieldInfo, is_whole: bool) -> str:
    least = most = above = None
    for rule in field.metadata:
        if isinstance(rule, Ge):
            least = rule.ge
        elif isinstance(rule, Gt):
            above = rule.gt
        elif isinstance(rule, Le):
            most = rule.le
        elif isinstance(rule, Lt):
            most = rule.lt - 1 if is_whole else rule.lt  # pyright: ignore[reportOperatorIssue] -- numbers here
    if least is not None and most is not None:
        return f" from {least:,} to {most:,}"
    parts = [] if above is None else [f"above {above:,}"]
    parts += [] if least is None else [f"of {least:,} or more"]
    parts += [] if most is None else [f"at most {most:,}"]
    return " " + " and ".join(parts) if parts else ""
