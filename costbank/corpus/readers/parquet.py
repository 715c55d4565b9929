"""Read Parquet files, with one document per row in a column of strings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from costbank.corpus.readers.formats import CorpusFile, Part
from costbank.corpus.readers.reading import BadRecord, BadRecords, ReadOptions
from costbank.corpus.readers.streams import open_stored
from costbank.errors import CorpusError, require

__all__ = ["read_parquet", "row_group_bytes"]

_MAX_BATCH_ROWS = 1 << 16
_BUFFER_BYTES = 1 << 20


def read_parquet(
    file: CorpusFile, options: ReadOptions, bad: BadRecords, part: Part, block_bytes: int
) -> Iterator[tuple[list[str], int]]:
    """Read the documents of a Parquet file; see `costbank.corpus.readers.documents.read_documents`.

    A document is a value of the column that is neither null nor blank. A value that is not UTF-8 is a bad record. At
    most a batch and a page of that column are in memory; other columns are not read.

    Raises:
        CorpusError: the file is damaged or not Parquet, the column is missing or does not hold strings, or a record is
            bad, and `bad` refuses bad records.
        MissingExtraError: pyarrow is not installed.
    """
    with _opened(file) as parquet:
        column = _text_column(file, parquet.schema_arrow, options.text_field)
        leaves = _leaves(parquet, column)
        ends = _share_ends(file.size, _group_bytes(parquet.metadata))
        stop = len(ends) - 1 if part.stop is None else part.stop
        row = sum(parquet.metadata.row_group(group).num_rows for group in range(part.start))
        consumed = ends[part.start]
        for group in range(part.start, stop):
            rows, done = parquet.metadata.row_group(group).num_rows, 0
            batches = parquet.iter_batches(
                batch_size=_batch_rows(parquet.metadata.row_group(group), leaves, block_bytes),
                row_groups=[group],
                columns=[column],
                use_threads=False,
            )
            while (batch := _next_batch(file, batches, group)) is not None:
                done += batch.num_rows
                reached = ends[group] + (ends[group + 1] - ends[group]) * done // rows
                yield _documents(file, _values(batch, column), row, bad), reached - consumed
                row, consumed = row + batch.num_rows, reached
            if ends[group + 1] > consumed:
                yield [], ends[group + 1] - consumed
                consumed = ends[group + 1]


def row_group_bytes(file: CorpusFile) -> list[int]:
    """The number of stored bytes of each row group of a Parquet file.

    Raises:
        CorpusError: the file is damaged or not Parquet.
        MissingExtraError: pyarrow is not installed.
    """
    with _opened(file) as parquet:
        return _group_bytes(parquet.metadata)


@contextmanager
def _opened(file: CorpusFile) -> Iterator[Any]:
    pyarrow, module = require("pyarrow", "corpus"), require("pyarrow.parquet", "corpus")
    with open_stored(file) as handle:
        try:
            # With other arguments, pyarrow reads whole column chunks at once.
            parquet = module.ParquetFile(handle, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            _ = parquet.schema_arrow.names, _leaves(parquet, "")  # this decodes the names, which may not be UTF-8
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise CorpusError(
                f"{file.shown} is not a complete Parquet file ({file.size} bytes): {error}",
                "copy or download it again",
            ) from error
        with parquet:
            yield parquet


def _group_bytes(metadata: Any) -> list[int]:
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return [
        sum(group.column(column).total_compressed_size for column in range(metadata.num_columns)) for group in groups
    ]


def _share_ends(size: int, group_bytes: list[int]) -> list[int]:
    """The start of each row group and the end of the last, with all bytes of the file divided among the row groups."""
    total, end, ends = max(1, sum(group_bytes)), 0, [0]
    for count in group_bytes:
        end += count
        ends.append(size * end // total)
    return ends


def _text_column(file: CorpusFile, schema: Any, name: str) -> str:
    """Check that the text column exists and holds strings; return its name, a path with dots if it is nested."""
    field = schema.field(name) if schema.names.count(name) == 1 else _field_within(schema, name)
    if field is None:
        raise CorpusError(
            f"{file.shown} has no column {name!r}; its columns are {_shown_columns(schema)}",
            "name the text column with --set corpus.text_field=…",
        )
    if not _holds_strings(field.type):
        raise CorpusError(
            f"the column {name!r} of {file.shown} holds {field.type} instead of text; the file's columns are "
            f"{_shown_columns(schema)}",
            "name the text column with --set corpus.text_field=…",
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
    """The numbers of the stored columns with this path; two if a column's name has dots and is also another's path."""
    return [number for number in range(parquet.metadata.num_columns) if parquet.schema.column(number).path == path]


def _batch_rows(group: Any, leaves: list[int], block_bytes: int) -> int:
    """The number of rows with about `block_bytes` bytes of text."""
    stored = sum(group.column(number).total_uncompressed_size for number in leaves)
    return max(1, min(_MAX_BATCH_ROWS, block_bytes * group.num_rows // max(1, stored)))


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
            reason = f"has text that is not UTF-8: byte 0x{error.object[error.start]:02x}"
            bad.add(BadRecord(file.shown, reason, f"row {first_row + number}"))
        else:
            if text and not text.isspace():
                texts.append(text)
    return texts
