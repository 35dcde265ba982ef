"""The columns of a series file: CSV, TSV or parquet, from people who did not write it for us."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtimes.errors import InputError
from trainers.readers import MAX_FILE_BYTES, decode

if TYPE_CHECKING:
    from trainers.series import SeriesConfig

SUFFIXES = (".csv", ".tsv", ".parquet")
MAX_CHANNELS = 512
MAX_ROWS = 5_000_000
MAX_TABLE_CELLS = 100_000_000
_MAX_NAME = 200
_TIMES = ("timestamp", "datetime", "time", "date", "ds", "ts", "t")
_LABELS = ("label", "anomaly", "is_anomaly")
_ZONE = re.compile(r":\d\d(?:[.,]\d+)?\s*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?$")
# Numbers as times: seconds, milli-, micro- or nanoseconds of unix time, told by their size.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))


@dataclass(frozen=True)
class Columns:
    """A file's rows as they stand: `times` (n,) unix seconds, `values` (n, c), NaN where empty, `labels` (n,)
    bool or None, `series` (n,) the names that tell several series apart, or None."""

    times: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray | None
    series: np.ndarray | None

    def take(self, rows: np.ndarray) -> "Columns":
        """These rows only."""
        labels = None if self.labels is None else self.labels[rows]
        series = None if self.series is None else self.series[rows]
        return Columns(self.times[rows], self.values[rows], self.names, labels, series)


@dataclass(frozen=True)
class _Roles:
    time: str
    label: str
    series: str
    channels: tuple[str, ...]


def read_columns(path: Path, config: "SeriesConfig") -> Columns:
    """The columns of one file by their roles; InputError, one line, for each way that it can be wrong."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: {suffix or 'no'} suffix is not known; use one of {', '.join(SUFFIXES)}")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            limit = MAX_FILE_BYTES >> 20
            raise InputError(f"{path}: {size >> 20} MB is over the limit of {limit} MB; split it")
        table, roles = (_parquet if suffix == ".parquet" else _table)(path, config)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    if not table.num_rows:
        raise InputError(f"{path}: no rows; give it a row for each point in time")
    values = np.empty((table.num_rows, len(roles.channels)))
    for i, name in enumerate(roles.channels):
        values[:, i] = _numbers(path, name, table.column(name))
    labels = _labels(path, roles.label, table.column(roles.label)) if roles.label else None
    series = _names(path, roles.series, table.column(roles.series)) if roles.series else None
    times = _times(path, roles.time, table.column(roles.time), config.zone)
    return Columns(times, values, roles.channels, labels, series)


# which column is what


def _roles(path: Path, columns: list[str], config: "SeriesConfig") -> _Roles:
    """Channels are those that the config names, or empty: then the numbers among the rest are."""
    have = ", ".join(columns[:12]) + (" …" if len(columns) > 12 else "")
    for name in (config.time, config.label, config.series, *config.channels):
        if name and name not in columns:
            raise InputError(f"{path}: no column {name!r}; the columns are: {have}")
    if len(columns) > MAX_CHANNELS + 3:
        raise InputError(f"{path}: {len(columns)} columns, over the limit of {MAX_CHANNELS} channels")
    lower = {column.lower(): column for column in reversed(columns) if column not in config.channels}
    time = config.time or next((lower[name] for name in _TIMES if name in lower), "")
    if not time:
        raise InputError(f"{path}: no column of times among {have}; name it (series.time)")
    label = config.label or next((lower[name] for name in _LABELS if name in lower), "")
    return _Roles(time, label, config.series, config.channels)


def _with_channels(path: Path, roles: _Roles, numeric: list[str]) -> _Roles:
    rest = [name for name in numeric if name not in (roles.time, roles.label, roles.series)]
    channels = roles.channels or tuple(rest)
    if not channels:
        raise InputError(f"{path}: no column of numbers beside {roles.time!r}; a series needs one or more")
    return _Roles(roles.time, roles.label, roles.series, channels)


# CSV and TSV


def _table(path: Path, config: "SeriesConfig") -> tuple[Any, _Roles]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    raw = path.read_bytes()
    decode(path, raw)
    if b"\0" in raw:
        raise InputError(f"{path}: holds zero bytes (at byte offset {raw.index(0)}); it is no text file")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    columns = _header(path, raw, delimiter)
    roles = _roles(path, columns, config)
    if raw.count(b"\n") > MAX_ROWS:
        raise InputError(f"{path}: over the limit of {MAX_ROWS} rows; split it")
    texts = {name: pa.string() for name in (roles.time, roles.series) if name}
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(raw.removeprefix(b"\xef\xbb\xbf")),
            read_options=arrow_csv.ReadOptions(column_names=columns, skip_rows=1, block_size=8 << 20),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
            convert_options=arrow_csv.ConvertOptions(column_types=texts),
        )
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: {_csv_reason(str(error))}") from None
    if not table.num_rows:
        raise InputError(f"{path}: no rows; give it a row for each point in time")
    rest = [name for name in columns if name not in (roles.time, roles.label, roles.series)]
    kept = [name for name in rest if _is_number(path, name, table.column(name), name in config.channels)]
    return table, _with_channels(path, roles, kept)


def _csv_reason(error: str) -> str:
    reason = error.splitlines()[0].removeprefix("CSV parse error: ")
    if "Empty CSV" in reason:
        return "no rows; give it a row for each point in time"
    return f"broken table ({reason[:160]}); each row needs as many fields as the header"


def _header(path: Path, raw: bytes, delimiter: str) -> list[str]:
    first = raw.split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    if not first.strip():
        raise InputError(f"{path}: line 1 is empty; the first line names the columns")
    if len(first) > 1 << 20:
        raise InputError(f"{path}: line 1 is over 1 MB; the first line names the columns")
    try:
        columns = [name.strip() for name in next(csv.reader(io.StringIO(first), delimiter=delimiter))]
    except (csv.Error, StopIteration) as error:
        raise InputError(f"{path}: line 1 is broken ({error}); check its quotes") from None
    other = next((mark for mark in ";\t|," if mark != delimiter and mark in first), "")
    if len(columns) == 1 and other:
        raise InputError(f"{path}: fields are parted by {other!r}; save it with {delimiter!r} between them")
    if sum(bool(_NUMBER.match(name)) for name in columns) > len(columns) / 2:
        raise InputError(f"{path}: line 1 holds numbers; the first line names the columns")
    if "" in columns:
        raise InputError(f"{path}: column {columns.index('') + 1} has no name; name or drop it")
    twice = next((name for name in columns if columns.count(name) > 1), "")
    if twice:
        raise InputError(f"{path}: column {twice!r} stands twice in the header; rename one")
    return columns


def _is_number(path: Path, name: str, column: Any, wanted: bool) -> bool:
    """Whether a CSV column is numbers. Text that is mostly numbers is a fault, and so is text in a channel
    that was asked for; other text is no channel."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return True
    if pa.types.is_null(kind):
        raise InputError(f"{path}: {name!r} has no value at all; leave the column out")
    if not pa.types.is_string(kind):
        return False
    right = pc.match_substring_regex(pc.utf8_trim_whitespace(column), r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$")
    if not wanted and (pc.mean(right.cast(pa.float64())).as_py() or 0) <= 0.5:
        return False
    row = pc.index(right, False).as_py()
    if row < 0:
        return True
    text = column[row].as_py()[:40]
    raise InputError(f"{path} row {row + 1}: {name!r} is {text!r}, not a number; leave it empty if missing")


# parquet


def _parquet(path: Path, config: "SeriesConfig") -> tuple[Any, _Roles]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as opened:
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
        roles = _roles(path, list(schema.names), config)
        _check_schema(path, schema, roles)
        numeric = [name for name in schema.names if _is_numeric(schema.field(name).type)]
        roles = _with_channels(path, roles, numeric)
        if rows > MAX_ROWS or rows * len(roles.channels) > MAX_TABLE_CELLS:
            raise InputError(f"{path}: {rows} rows of {len(roles.channels)} channels; split it")
        # A text that is repeated takes no room in the file; as a dictionary it takes none here either.
        texts = [name for name in (roles.time, roles.series) if name and _is_text(schema.field(name).type)]
        wanted = [name for name in (roles.time, roles.label, roles.series, *roles.channels) if name]
        with pq.ParquetFile(path, read_dictionary=texts) as opened:
            table = opened.read(columns=wanted)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise InputError(f"{path}: not readable as parquet ({reason}); write it again") from None
    return table, roles


def _is_numeric(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _check_schema(path: Path, schema: Any, roles: _Roles) -> None:
    import pyarrow as pa

    twice = next((name for name in schema.names if schema.names.count(name) > 1), "")
    if twice:
        raise InputError(f"{path}: column {twice!r} stands twice; rename one")
    for field in schema:
        if pa.types.is_nested(field.type):
            raise InputError(f"{path}: column {field.name!r} is nested ({field.type}); make it plain columns")
        if field.name in roles.channels and not _is_numeric(field.type):
            raise InputError(f"{path}: {field.name!r} is {field.type}, not numbers; choose other channels")


# values


def _numbers(path: Path, name: str, column: Any) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        if pa.types.is_string(column.type):
            column = pc.utf8_trim_whitespace(column)
        elif pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        array: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return array
    except pa.ArrowException as error:
        raise InputError(f"{path}: {name!r} cannot be read as numbers ({str(error)[:120]})") from None


def _labels(path: Path, name: str, column: Any) -> np.ndarray:
    import pyarrow as pa

    if not _is_numeric(column.type):
        raise InputError(f"{path}: the labels in {name!r} are {column.type}; use 0 and 1 (1: anomaly)")
    marks = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~np.isin(marks, (0.0, 1.0)))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{path} row {row + 1}: label {name!r} is {marks[row]:g}; use 0 and 1 (1: anomaly)")
    return marks == 1


def _names(path: Path, name: str, column: Any) -> np.ndarray:
    texts = _texts(path, name, column, _MAX_NAME)
    empty = np.flatnonzero([not text for text in texts])
    if len(empty):
        raise InputError(f"{path} row {int(empty[0]) + 1}: {name!r} is empty; name the row's series")
    return texts


def _texts(path: Path, name: str, column: Any, most: int) -> np.ndarray:
    """Short texts as an object array, "" where there is none; measured before they are spread out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    coded = column if pa.types.is_dictionary(column.type) else None
    for chunk in coded.chunks if coded is not None else column.chunks:
        texts = chunk.dictionary if coded is not None else chunk
        if not _is_text(texts.type):
            if coded is None and pa.types.is_integer(texts.type):
                continue
            raise InputError(f"{path}: {name!r} is {texts.type}, not text")
        longest = pc.max(pc.utf8_length(texts)).as_py() or 0
        if longest > most:
            raise InputError(f"{path}: {name!r} holds a text of {longest} characters; the limit is {most}")
    plain = pc.fill_null(column.cast(pa.string()), "")
    array: np.ndarray = plain.to_numpy(zero_copy_only=False)
    return array


# times


def _times(path: Path, name: str, column: Any, zone: str) -> np.ndarray:
    import pyarrow as pa

    kind = column.type
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{path} row {row + 1}: {name!r} is empty; each row needs its time")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        stamps = column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
        whole = stamps.cast(pa.int64()).to_numpy(zero_copy_only=False)
        naive = getattr(kind, "tz", None) is None
        return _localise(path, name, whole, zone) if naive else whole / 1e6
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _unix(path, name, column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    if _is_text(kind) or pa.types.is_dictionary(kind):
        return _parse_times(path, name, _texts(path, name, column, 64), zone)
    raise InputError(f"{path}: the times in {name!r} are {kind}; use ISO 8601 texts or unix seconds")


def _unix(path: Path, name: str, numbers: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0) | (numbers >= _UNITS[-1][0]))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{path} row {row + 1}: {name!r} is {numbers[row]:g}, no unix time; use seconds")
    unit = next(unit for limit, unit in _UNITS if numbers.max() < limit)
    times: np.ndarray = numbers / unit
    return times


def _parse_times(path: Path, name: str, texts: np.ndarray, zone: str) -> np.ndarray:
    import pandas as pd

    stripped = [text.strip() for text in texts]
    if all(_NUMBER.match(text) for text in stripped):
        return _unix(path, name, np.array(stripped, float))
    zoned = np.array([_ZONE.search(text) is not None for text in stripped])
    if zoned.any() and not zoned.all():
        row = int((zoned != zoned[0]).argmax())
        first, other = stripped[0], stripped[row]
        raise InputError(
            f"{path} row {row + 1}: {other!r} and {first!r}: only one has a time zone; give all or none one"
        )
    parsed = pd.to_datetime(pd.Series(stripped, dtype=object), format="ISO8601", utc=True, errors="coerce")
    wrong = np.flatnonzero(parsed.isna())
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{path} row {row + 1}: {name!r} is {stripped[row]!r}; use ISO 8601 (2026-01-31 13:00:00) "
            f"or unix seconds"
        )
    whole = _microseconds(pd.DatetimeIndex(parsed))
    return whole / 1e6 if zoned.all() else _localise(path, name, whole, zone)


def _localise(path: Path, name: str, microseconds: np.ndarray, zone: str) -> np.ndarray:
    """Unix seconds of wall-clock times in `zone`."""
    import pandas as pd

    if zone == "UTC":
        return microseconds / 1e6
    try:
        clock = pd.DatetimeIndex(microseconds.astype("datetime64[us]")).tz_localize(zone, ambiguous="infer")
    except (KeyError, LookupError, OSError):
        raise InputError(
            f"series.zone {zone!r} is no time zone; use an IANA name such as Europe/Paris"
        ) from None
    except ValueError as error:
        raise InputError(
            f"{path}: {name!r} does not fit {zone} where its clocks change ({str(error)[:90]}); use UTC there"
        ) from None
    return _microseconds(clock.tz_convert("UTC")) / 1e6


def _microseconds(index: Any) -> np.ndarray:
    whole: np.ndarray = index.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    return whole
