"""Parquet files with a document in a column of each row, read a few thousand rows at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from costbank.corpus.readers.formats import CorpusFile, Part
from costbank.corpus.readers.reading import BadRecord, BadRecords, ReadOptions
from costbank.corpus.readers.streams import open_stored
from costbank.errors import CorpusError, require

__all__ = ["read_parquet", "row_group_bytes"]

_BATCH_BYTES = 4 << 20
_MOST_BATCH_ROWS = 1 << 16
_BUFFER_BYTES = 1 << 20


def read_parquet(
    file: CorpusFile, options: ReadOptions, bad: BadRecords, part: Part
) -> Iterator[tuple[list[str], int]]:
    """The documents of a Parquet file in blocks of a few megabytes, each with the number of stored bytes it took.

    A document is a value of the column that is neither null nor blank. One that is not UTF-8 is a bad record. Memory is
    bounded by a batch and a page of that column; other columns are not read.

    Raises:
        CorpusError: the file is damaged or no Parquet, the column is missing or holds no strings, or there is a bad
            record, and these are refused.
        MissingExtraError: pyarrow is not installed.
    """
    with _opened(file) as parquet:
        column = _text_column(file, parquet.schema_arrow, options.text_field)
        leaves = _leaves(parquet, column)
        ends = _share_ends(file.size, _group_bytes(parquet.metadata))
        stop = len(ends) - 1 if part.stop is None else part.stop
        row = sum(parquet.metadata.row_group(group).num_rows for group in range(part.start))
        used = ends[part.start]
        for group in range(part.start, stop):
            rows, done = parquet.metadata.row_group(group).num_rows, 0
            batches = parquet.iter_batches(
                batch_size=_batch_rows(parquet.metadata.row_group(group), leaves),
                row_groups=[group],
                columns=[column],
                use_threads=False,
            )
            while (batch := _next_batch(file, batches, group)) is not None:
                done += batch.num_rows
                reached = ends[group] + (ends[group + 1] - ends[group]) * done // rows
                yield _documents(file, _values(batch, column), row, bad), reached - used
                row, used = row + batch.num_rows, reached
            if ends[group + 1] > used:
                yield [], ends[group + 1] - used
                used = ends[group + 1]


def row_group_bytes(file: CorpusFile) -> list[int]:
    """How many stored bytes each row group of a Parquet file has.

    Raises:
        CorpusError: the file is damaged or no Parquet.
        MissingExtraError: pyarrow is not installed.
    """
    with _opened(file) as parquet:
        return _group_bytes(parquet.metadata)


@contextmanager
def _opened(file: CorpusFile) -> Iterator[Any]:
    pyarrow, module = require("pyarrow", "corpus"), require("pyarrow.parquet", "corpus")
    with open_stored(file) as handle:
        try:
            # Otherwise pyarrow reads whole column chunks at once.
            parquet = module.ParquetFile(handle, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            _ = parquet.schema_arrow.names, _leaves(parquet, "")  # names are decoded only now
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise CorpusError(
                f"{file.shown} is not a whole Parquet file of {file.size} bytes: {error}", "copy or download it again"
            ) from error
        with parquet:
            yield parquet


def _group_bytes(metadata: Any) -> list[int]:
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return [
        sum(group.column(column).total_compressed_size for column in range(metadata.num_columns)) for group in groups
    ]


def _share_ends(size: int, group_bytes: list[int]) -> list[int]:
    """Where each row group begins, and the last ends, when all bytes of the file are shared among them."""
    total, before, ends = max(1, sum(group_bytes)), 0, [0]
    for count in group_bytes:
        before += count
        ends.append(size * before // total)
    return ends


def _text_column(file: CorpusFile, schema: Any, name: str) -> str:
    """The name of the column of text, a path with dots where it is within others."""
    field = schema.field(name) if schema.names.count(name) == 1 else _field_within(schema, name)
    if field is None:
        raise CorpusError(
            f"{file.shown} has no column {name!r}; its columns are {_shown_columns(schema)}",
            "--set corpus.text_field=… names the column that holds the text",
        )
    if not _holds_strings(field.type):
        raise CorpusError(
            f"the column {name!r} of {file.shown} holds {field.type}, and no text; its columns are "
            f"{_shown_columns(schema)}",
            "--set corpus.text_field=… names the column that holds the text",
        )
    return name


def _field_within(schema: Any, name: str) -> Any:
    types = require("pyarrow.types", "corpus")
    outer, *inner = name.split(".")
    field = schema.field(outer) if inner and schema.names.count(outer) == 1 else None
    for step in inner:
        if field is None or not types.is_struct(field.type) or field.type.get_field_index(step) < 0:
            return None
        field = field.type.field(step)
    return field


def _holds_strings(kind: Any) -> bool:
    types = require("pyarrow.types", "corpus")
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _shown_columns(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _leaves(parquet: Any, path: str) -> list[int]:
    """The numbers of the stored columns that go by a path; two where a name with dots is a path as well."""
    return [number for number in range(parquet.metadata.num_columns) if parquet.schema.column(number).path == path]


def _batch_rows(group: Any, leaves: list[int]) -> int:
    """Rows that come to about `_BATCH_BYTES` of text."""
    stored = sum(group.column(number).total_uncompressed_size for number in leaves)
    return max(1, min(_MOST_BATCH_ROWS, _BATCH_BYTES * group.num_rows // max(1, stored)))


def _next_batch(file: CorpusFile, batches: Iterator[Any], group: int) -> Any:
    pyarrow = require("pyarrow", "corpus")
    try:
        return next(batches, None)
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(
            f"{file.shown} is damaged in row group {group}: {error}", "copy or download it again"
        ) from error


def _values(batch: Any, column: str) -> Any:
    if column in batch.schema.names:
        return batch.column(column)
    outer, *inner = column.split(".")
    return require("pyarrow.compute", "corpus").struct_field(batch.column(outer), inner)


def _documents(file: CorpusFile, values: Any, first_row: int, bad: BadRecords) -> list[str]:
    try:
        return [text for text in values.to_pylist() if text and not text.isspace()]
    except UnicodeDecodeError:
        pass
    texts: list[str] = []
    for number, value in enumerate(values):
        try:
            text = value.as_py()
        except UnicodeDecodeError as error:
            reason = f"is not UTF-8: byte 0x{error.object[error.start]:02x} of a text"
            bad.add(BadRecord(file.shown, reason, f"row {first_row + number}"))
        else:
            if text and not text.isspace():
                texts.append(text)
    return texts
