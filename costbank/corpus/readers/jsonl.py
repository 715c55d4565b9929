"""Files of one JSON object a line, each with a document in one of its fields."""

import json
from collections.abc import Iterator
from typing import Any

from costbank.corpus.readers.formats import CorpusFile
from costbank.corpus.readers.lines import Fault, LineBlock, line_blocks
from costbank.corpus.readers.reading import Part, ReadOptions
from costbank.corpus.readers.records import BadRecords

__all__ = ["read_jsonl"]

_MOST_KEYS_SHOWN = 8
_NOTHING = object()
_FIELD_HINT = "--set corpus.text_field=… names the field"
_parse = json.JSONDecoder().raw_decode


def read_jsonl(file: CorpusFile, options: ReadOptions, bad: BadRecords, part: Part) -> Iterator[tuple[list[str], int]]:
    """The documents of a file of JSON lines in blocks of a few megabytes, each with the stored bytes used up for it.

    Blank lines, and objects whose text is blank, are left out. A line is a bad record when it is not a JSON object, or
    has no string in the field, or one that is not Unicode text.

    Raises:
        CorpusError: there is a bad record, and these are refused; an archive is cut short or damaged.
    """
    for block, used in line_blocks(file, part):
        yield _texts(block, options.text_field, bad), used


def _texts(block: LineBlock, field: str, bad: BadRecords) -> list[str]:
    texts: list[str] = []
    for number, line in enumerate(block.lines()):
        if isinstance(line, Fault):
            text = line
        elif (text := _quickly(line, field)) is None:
            if not line or line.isspace():
                continue
            text = _text_or_fault(line, field)
        if isinstance(text, Fault):
            bad.add(block.bad_record(number, text))
        elif text and not text.isspace():
            texts.append(text)
    return texts


def _quickly(line: str, field: str) -> str | None:
    """The text of a line where nothing is uncommon; None where `_text_or_fault` has to look."""
    try:
        record, end = _parse(line)
        text = record[field] if field in record else _field(record, field)
    except (TypeError, ValueError, RecursionError):
        return None
    common = end == len(line) and isinstance(text, str) and (text.isascii() or "\\u" not in line)
    return text if common else None


def _text_or_fault(line: str, field: str) -> str | Fault:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return Fault(f"has a line that is not JSON ({error.msg})", len(line[: error.pos].encode()))
    except (ValueError, RecursionError):
        return Fault("has a line of JSON with a number or a nesting that is too large")
    if not isinstance(record, dict):
        return Fault("has a line that is JSON, but no object")
    text = _field(record, field)
    if text is _NOTHING:
        keys = ", ".join(list(record)[:_MOST_KEYS_SHOWN]) or "none"
        return Fault(
            f"has an object without the field {field!r} (its keys: {keys})",
            0,
            _FIELD_HINT,
        )
    if not isinstance(text, str):
        return Fault(
            f"has {_json_kind(text)} in the field {field!r}, and no string,",
            0,
            _FIELD_HINT,
        )
    if not text.isascii() and "\\u" in line:
        try:
            text.encode()
        except UnicodeEncodeError:
            return Fault(f"has half of a surrogate pair in the field {field!r}")
    return text


def _field(value: Any, name: str) -> Any:
    """What a name means in an object: the whole name first, then what follows a dot within what is before it."""
    if not isinstance(value, dict):
        return _NOTHING
    if name in value:
        return value[name]
    outer, dot, inner = name.partition(".")
    return _field(value[outer], inner) if dot and outer in value else _NOTHING


def _json_kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "true or false", dict: "an object", list: "an array"}
    return kinds.get(type(value), "a number")
