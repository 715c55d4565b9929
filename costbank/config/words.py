"""What values a setting takes, and what is wrong with one, in words of our own rather than pydantic's."""

from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo

__all__ = ["choices", "one_of", "shown", "takes"]

_MOST_SHOWN = 60


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The names that a setting may have for its value; none where it takes anything else."""
    kind = _kind(field.annotation)
    return get_args(kind) if get_origin(kind) is Literal else ()


def takes(field: FieldInfo) -> str:
    """The values that a setting takes, such as "a whole number from 1 to 256"."""
    kind = _kind(field.annotation)
    if get_origin(kind) is Literal:
        return one_of(get_args(kind))
    if get_origin(kind) is tuple:
        return 'a list of texts, such as ["center", "pca:128"]'
    if kind is ByteSize:
        least = [ByteSize(rule.ge).human_readable() for rule in field.metadata if isinstance(rule, Ge)]  # pyright: ignore[reportArgumentType] -- bytes here
        return "a size such as 4GB" + "".join(f", {size} or more" for size in least)
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number{_bounds(field, whole=kind is int)}"
    if kind is bool:
        return "true or false"
    if kind is SecretStr:
        least = next((rule.min_length for rule in field.metadata if isinstance(rule, MinLen)), 0)
        return f"a text of {least} letter{'s' if least > 1 else ''} or more" if least else "a text"
    return "a path" if kind is Path else "a text"


def one_of(names: Sequence[str]) -> str:
    """Names as a sentence lists them."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)


def shown(value: object) -> str:
    """A value as a person would type it, cut where it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, str | list | tuple | dict) else str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def _kind(annotation: Any) -> Any:
    """What a setting takes besides None."""
    if get_origin(annotation) in (Union, UnionType):
        return next(part for part in get_args(annotation) if part is not NoneType)
    return annotation


def _bounds(field: FieldInfo, whole: bool) -> str:
    least = most = above = None
    for rule in field.metadata:
        if isinstance(rule, Ge):
            least = rule.ge
        elif isinstance(rule, Gt):
            above = rule.gt
        elif isinstance(rule, Le):
            most = rule.le
        elif isinstance(rule, Lt):
            most = rule.lt - 1 if whole else rule.lt  # pyright: ignore[reportOperatorIssue] -- of numbers here
    if least is not None and most is not None:
        return f" from {least:,} to {most:,}"
    parts = [] if above is None else [f"above {above:,}"]
    parts += [] if least is None else [f"of {least:,} or more"]
    parts += [] if most is None else [f"at most {most:,}"]
    return " " + " and ".join(parts) if parts else ""
