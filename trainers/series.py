"""Time series: times, channels, labels; read from a user's own files on an even grid, or told why not."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import InputError
from trainers.series_files import SUFFIXES, Columns, read_columns
from trainers.sources import find

MAX_POINTS = 5_000_000
MAX_CELLS = 100_000_000
MAX_FILES = 1_000
MAX_VALUE = 1e30
MAX_FILL = 5
"""In a training part, gaps of at most this many points are filled by a straight line."""
MIN_POINTS = 16
_MAX_STRETCH = 20


@dataclass(frozen=True)
class SeriesConfig:
    """How a file is read. Empty names are guessed: the time column by its usual names, `label` or `anomaly`
    for the labels, all other columns of numbers as channels.

    `series` names the column that tells several series of one file apart. `zone` is the time zone of times
    that carry none (an IANA name). `step` is in seconds, 0 for the median step. `train` is the share of each
    series, from its start, that models are fitted on.
    """

    time: str = ""
    channels: tuple[str, ...] = ()
    label: str = ""
    series: str = ""
    zone: str = "UTC"
    step: float = 0.0
    train: float = 0.5


@dataclass(frozen=True)
class Series:
    """One series. `times` (n,) float64 unix seconds, rising; `values` (n, c) float64, NaN where missing;
    `labels` (n,) bool, True in an anomaly, or None; points before `train_end` are the training part;
    `step` in seconds. `notes` counts what was done to the rows: repeated, unordered, missing, filled.
    Short gaps are filled in the training part only: what follows is judged as it arrived."""

    name: str
    family: str
    times: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray | None
    train_end: int
    step: float
    notes: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def train(self) -> np.ndarray:
        """The training part's values (train_end, c)."""
        return self.values[: self.train_end]

    def cut(self, start: int, end: int, train_end: int) -> "Series":
        """The points from `start` to before `end`; `train_end` counts from the new start."""
        labels = None if self.labels is None else self.labels[start:end]
        times, values = self.times[start:end], self.values[start:end]
        return Series(
            self.name, self.family, times, values, self.names, labels, train_end, self.step, self.notes
        )


def read_series(path: str | Path, config: SeriesConfig = SeriesConfig()) -> list[Series]:
    """The series of a CSV, TSV or parquet file, of a folder of them, or of a data set by its name.

    Rows are put in order, rows of one time are merged (mean; an anomaly wins), and the rest is put on an even
    grid of `step` seconds, each row at its nearest point. InputError, one line, for what cannot be read so.
    """
    _check(config)
    source = find(str(path), "data")
    files = [source.path] if source.path.is_file() else _files(source.path)
    found: list[Series] = []
    for file in files:
        columns = read_columns(file, config)
        parts = _parts(file, columns)
        found += [_series(file, name, part, config) for name, part in parts]
    return found


def _check(config: SeriesConfig) -> None:
    if not 0.05 <= config.train <= 1:
        raise InputError(f"series.train is {config.train}; it is a share from 0.05 to 1")
    if not (config.step >= 0 and np.isfinite(config.step)):
        raise InputError(f"series.step is {config.step}; it is in seconds, 0 for the median step")
    if len(set(config.channels)) < len(config.channels):
        raise InputError("series.channels names a column twice; name each once")
    taken = [name for name in (config.time, config.label, config.series, *config.channels) if name]
    if len(set(taken)) < len(taken):
        raise InputError("series: one column has two roles; time, label, series and channels must differ")


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InputError(f"{folder}: no series in it; put {', '.join(SUFFIXES)} files there")
    if len(files) > MAX_FILES:
        raise InputError(f"{folder}: {len(files)} files, over the limit of {MAX_FILES}; split it")
    return files


def _parts(path: Path, columns: Columns) -> list[tuple[str, Columns]]:
    if columns.series is None:
        return [(path.stem, columns)]
    names, index = np.unique(columns.series, return_inverse=True)
    if len(names) > MAX_FILES:
        raise InputError(f"{path}: {len(names)} series in it, over the limit of {MAX_FILES}; split it")
    return [(str(name), columns.take(np.flatnonzero(index == i))) for i, name in enumerate(names)]


def _series(path: Path, name: str, columns: Columns, config: SeriesConfig) -> Series:
    where = str(path) if columns.series is None else f"{path} series {name!r}"
    _check_values(where, columns)
    times, values, labels, notes = merge(columns.times, columns.values, columns.labels)
    if len(times) < MIN_POINTS:
        raise InputError(f"{where}: {len(times)} different times, under the {MIN_POINTS} that are needed")
    if notes["repeated"] > len(columns.times) / 2:
        raise InputError(
            f"{where}: {notes['repeated']} of {len(columns.times)} rows repeat a time; if several series "
            f"stand in it, name the column that tells them apart (series.series)"
        )
    step = config.step or float(np.median(np.diff(times)))
    times, values, labels = _even(where, times, values, labels, step)
    notes["missing"] = int(np.isnan(values).sum())
    one = Series(name, path.stem, times, values, columns.names, labels, 0, step, notes)
    return with_train(one, max(1, round(len(times) * config.train)))


def with_train(series: Series, train_end: int) -> Series:
    """The series with its training part set, and the short gaps in it filled. What follows stays as it is: a
    line over a gap there would tell a detector of the point behind it."""
    values = series.values.copy()
    values[:train_end] = fill_gaps(values[:train_end], MAX_FILL)
    filled = int(np.isnan(series.values).sum() - np.isnan(values).sum())
    notes = {**series.notes, "filled": filled}
    return replace(series, values=values, train_end=train_end, notes=notes)


def _check_values(where: str, columns: Columns) -> None:
    finite = np.isfinite(columns.values)
    wrong = np.argwhere(np.isinf(columns.values))
    if len(wrong):
        row, channel = wrong[0]
        raise InputError(f"{where} row {row + 1}: {columns.names[channel]!r} is infinite; leave it empty")
    empty = ~finite.any(axis=0)
    if empty.any():
        raise InputError(f"{where}: {columns.names[int(empty.argmax())]!r} has no value at all; leave it out")
    large = np.argwhere(finite & (np.abs(np.where(finite, columns.values, 0)) > MAX_VALUE))
    if len(large):
        row, channel = large[0]
        name = columns.names[channel]
        raise InputError(f"{where} row {row + 1}: {name!r} is over the limit of {MAX_VALUE:g}; rescale it")


def merge(
    times: np.ndarray, values: np.ndarray, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict[str, int]]:
    """Rows in the order of their times, rows of one time as one: the mean of what is there, and an anomaly
    if one of them is. Also counts: rows that were out of order, and that repeated a time."""
    unordered = int((np.diff(times) < 0).sum())
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    starts = np.flatnonzero(np.diff(times, prepend=-np.inf) > 0)
    repeated = len(times) - len(starts)
    if labels is not None:
        labels = labels[order]
    if repeated:
        values = _group_means(values, starts)
        labels = None if labels is None else np.logical_or.reduceat(labels, starts)
        times = times[starts]
    return times, values, labels, {"repeated": repeated, "unordered": unordered}


def _group_means(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    there = ~np.isnan(values)
    counts = np.add.reduceat(there.astype(np.int64), starts, axis=0)
    sums = np.add.reduceat(np.where(there, values, 0.0), starts, axis=0)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _even(
    where: str, times: np.ndarray, values: np.ndarray, labels: np.ndarray | None, step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """On a grid of `step` seconds from the first time, each row at its nearest point; NaN where none is."""
    count = int((times[-1] - times[0]) / step + 0.5) + 1
    if count > MAX_POINTS or count * values.shape[1] > MAX_CELLS or count > _MAX_STRETCH * len(times):
        raise InputError(
            f"{where}: {len(times)} rows over {times[-1] - times[0]:.0f} s would be {count} points at a step "
            f"of {step:g} s; give a longer step or cut out the part without rows"
        )
    places = np.floor((times - times[0]) / step + 0.5).astype(np.int64)
    starts = np.flatnonzero(np.diff(places, prepend=-1) > 0)
    grid = np.full((count, values.shape[1]), np.nan)
    grid[places[starts]] = _group_means(values, starts)
    marks = None
    if labels is not None:
        here = np.logical_or.reduceat(labels, starts)
        # A point without a row has the label of the row before it.
        marks = here[np.searchsorted(places[starts], np.arange(count), side="right") - 1]
    return times[0] + step * np.arange(count), grid, marks


def fill_gaps(values: np.ndarray, most: int) -> np.ndarray:
    """(n, c) with straight lines over gaps of at most `most` points between two values; longer ones stay."""
    filled = values.copy()
    places = np.arange(len(values))
    for channel in range(values.shape[1]):
        there = np.flatnonzero(~np.isnan(values[:, channel]))
        if len(there) < 2 or len(there) == len(values):
            continue
        gaps = np.diff(there) - 1
        short = np.repeat((gaps > 0) & (gaps <= most), np.diff(there))
        inside = places[there[0] : there[-1]][short]
        inside = inside[np.isnan(values[inside, channel])]
        filled[inside, channel] = np.interp(inside, there, values[there, channel])
    return filled


def complete(values: np.ndarray) -> np.ndarray:
    """(n, c) without NaN: each missing value is the last one before it, at the start the first one after it,
    and 0 in a channel that has none. For models that know no missing values."""
    there = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(there, np.arange(len(values))[:, None], -1), axis=0)
    first = np.where(there.any(axis=0), there.argmax(axis=0), 0)
    index = np.where(last < 0, first, last)
    return np.nan_to_num(np.take_along_axis(values, index, axis=0))


def events(labels: np.ndarray) -> np.ndarray:
    """(k, 2): the first point and the point after the last of each run of True in `labels` (n,)."""
    edges = np.flatnonzero(np.diff(np.asarray(labels, np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2)


def about(series: Series) -> dict[str, Any]:
    """What a report says of a series, in plain numbers."""
    labels = series.labels
    return {
        "name": series.name,
        "family": series.family,
        "points": len(series),
        "channels": len(series.names),
        "train_points": series.train_end,
        "step_s": series.step,
        "missing": round(float(np.isnan(series.values).mean()), 6),
        "anomalous_points": None if labels is None else int(labels.sum()),
        "events": None if labels is None else len(events(labels)),
        **series.notes,
    }
