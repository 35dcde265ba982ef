"""Rows of a user's file: CSV, TSV, JSON (lines, or one list), parquet.

Every fault is one line with file and line number.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtimes.errors import InputError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
MAX_FILE_BYTES = 1 << 30
MAX_ROWS = 5_000_000
MAX_TEXT_CHARS = 1_000_000

Row = tuple[int, dict[str, Any]]


def read_rows(path: Path) -> Iterator[Row]:
    """(line number, {column: value}) for each row of the file; the row number for parquet and JSON lists."""
    packed = path.name.lower().endswith(".jsonl.gz")
    suffix = ".jsonl" if packed else path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: {suffix or 'no'} suffix is not known; use one of {', '.join(SUFFIXES)}")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            limit = MAX_FILE_BYTES >> 20
            raise InputError(f"{path}: {size >> 20} MB is over the limit of {limit} MB; split it")
        raw = b"" if suffix == ".parquet" else _unpacked(path) if packed else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if suffix == ".parquet":
        yield from _parquet(path)
    elif suffix in (".csv", ".tsv"):
        yield from _table(path, decode(path, raw), "," if suffix == ".csv" else "\t")
    elif suffix == ".json" and raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from _json_list(path, decode(path, raw))
    else:
        yield from _json_lines(path, decode(path, raw))


def _unpacked(path: Path) -> bytes:
    """The content of a .gz file, up to the limit whatever it states."""
    try:
        with gzip.open(path) as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise InputError(f"{path}: broken gzip; fetch it again") from None
    if len(raw) > MAX_FILE_BYTES:
        raise InputError(f"{path}: over the limit of {MAX_FILE_BYTES >> 20} MB unpacked; split it")
    return raw


def decode(path: Path, raw: bytes) -> str:
    """UTF-8, with or without a byte order mark; InputError with the byte offset where it is not."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path}: UTF-16 (byte offset 0); save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + 3 * raw.startswith(b"\xef\xbb\xbf")
        line = raw.count(b"\n", 0, offset) + 1
        byte = raw[offset]
        raise InputError(
            f"{path} line {line}: not UTF-8 (byte 0x{byte:02x} at byte offset {offset}); save it as UTF-8"
        ) from None


def _table(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    start = 1
    previous = csv.field_size_limit(MAX_TEXT_CHARS * 4)
    try:
        for fields in reader:
            if not fields:
                pass  # a blank line
            elif columns is None:
                columns = _header(path, fields)
            elif len(fields) != len(columns):
                raise InputError(
                    f"{path} line {start}: {len(fields)} fields, but the header has {len(columns)}; "
                    f"put fields that hold {delimiter!r} in double quotes"
                )
            else:
                yield start, dict(zip(columns, fields, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} line {start}: broken table row ({error}); check its quotes") from None
    finally:
        csv.field_size_limit(previous)


def _header(path: Path, fields: list[str]) -> list[str]:
    columns = [field.strip() for field in fields]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise InputError(f"{path} line 1: column {twice[0]!r} stands twice in the header; rename one")
    return columns


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error).split(":")[0]
            raise InputError(f"{path} line {number}: broken JSON ({reason}); one object a line") from None
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise InputError(f"{path} line {number}: a JSON {kind}, not an object; one object a line")
        yield number, row


def _json_list(path: Path, text: str) -> Iterator[Row]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        reason = str(error).split(":")[0]
        raise InputError(f"{path} line {line}: broken JSON ({reason}); a list of objects") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path} row {number}: a JSON {type(row).__name__}, not an object")
        yield number, row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if file.metadata.num_rows > MAX_ROWS:
            raise InputError(f"{path}: {file.metadata.num_rows} rows, over the limit of {MAX_ROWS}; split it")
        number = 0
        for batch in file.iter_batches(batch_size=10_000):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not readable as parquet ({reason}); write it again") from None
