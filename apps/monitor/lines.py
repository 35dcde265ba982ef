"""Points from lines: CSV or JSON, from a pipe that never ends or from a file. Bounded, whatever comes."""

import json
import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from runtimes.errors import InputError

MAX_LINE = 1 << 16  # bytes
MAX_CHANNELS = 512
MAX_NAME = 200
BLOCK = 1 << 16  # bytes read at once, so a batch has at most so many bytes of lines
TELL = 10  # bad lines that are told one by one; then they are only counted
AHEAD_S = 300.0  # how far a time may be ahead of this machine's clock: one far away would outdate all others
UNIX = 1e9  # bare numbers: a first column from here on is unix time (since 2001)
WAIT_S = 1.0  # how long the source may be silent before whoever asks gets a turn
TIMES = ("timestamp", "datetime", "time", "date", "ds", "ts", "t")
LABELS = ("label", "anomaly", "is_anomaly")
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))  # of unix time, told by its size


@dataclass(frozen=True)
class Batch:
    """What came: `times` (n,) unix seconds, `values` (n, channels), NaN where missing. It may be empty."""

    names: tuple[str, ...]
    times: np.ndarray
    values: np.ndarray


class Lines:
    """Lines → batches. The first line says what the columns are: a header, a JSON object, or numbers.

    A line without a time is one second after the one before it; the first of these comes at `start`.
    Channels are those of the first line: later JSON objects may lack some (missing) or have more (ignored).
    """

    def __init__(self, tell: Callable[[str], None], start: float | None = None) -> None:
        self.names: tuple[str, ...] = ()
        self.bad = self.count = 0
        self._tell = tell
        self._clock = time.time() if start is None else start
        self._time = -1  # the column of the time, -1: none
        self._columns: list[int] = []
        self._width = 0
        self._json, self._delimiter, self._time_key = False, ",", ""

    def batch(self, lines: list[bytes]) -> Batch:
        """The points of some lines. A line that is none is told and left out."""
        times: list[float] = []
        rows: list[list[float]] = []
        for line in lines:
            self.count += 1
            text = line.strip()
            if not text:
                continue
            try:
                found = self._point(text)
            except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
                self._refuse(str(error))
                continue
            if found is not None:
                times.append(found[0])
                rows.append(found[1])
        values = np.array(rows, float).reshape(len(rows), len(self.names))
        return Batch(self.names, np.array(times, float), values)

    def _refuse(self, why: str) -> None:
        self.bad += 1
        if self.bad <= TELL:
            rest = "; further ones are only counted" if self.bad == TELL else ""
            self._tell(f"line {self.count}: {' '.join(why.split())[:120]}; left out{rest}")

    def _point(self, text: bytes) -> tuple[float, list[float]] | None:
        if not self.names and self._begin(text):
            return None
        if self._json:
            told = json.loads(text)
            when = self._stamp(told[self._time_key] if self._time_key else None)
            return when, [_number(told.get(name)) for name in self.names]
        fields = text.decode().split(self._delimiter)
        if len(fields) != self._width:
            raise ValueError(f"{len(fields)} fields, not {self._width}")
        values = [_number(fields[column]) for column in self._columns]
        return self._stamp(fields[self._time] if self._time >= 0 else None), values

    def _stamp(self, told: object) -> float:
        if told is None:
            self._clock += 1.0
            return self._clock
        when = parse_time(told)
        if when > time.time() + AHEAD_S:
            raise ValueError(f"{told!r:.40} is ahead of this machine's clock")
        return when

    def _begin(self, text: bytes) -> bool:
        """Learn the columns from the first line; whether that was a header, with no point in it."""
        if text.startswith(b"{"):
            told = json.loads(text)
            keys = [str(key) for key in told]
            self._time_key = next((key for key in keys if key.lower() in TIMES), "")
            rest = [key for key in keys if key != self._time_key and key.lower() not in LABELS]
            self.names = _named([key for key in rest if _is_number(told[key])])
            self._json = True
            return False
        line = text.removeprefix(b"\xef\xbb\xbf").decode()
        self._delimiter = next((mark for mark in ("\t", ";", ",") if mark in line), ",")
        fields = [field.strip().strip('"') for field in line.split(self._delimiter)]
        header = not all(_is_number(field) for field in fields)
        if header:
            names = [field.lower() for field in fields]
            self._time = next((names.index(one) for one in TIMES if one in names), -1)
            kept = [n for n, one in enumerate(names) if n != self._time and one not in LABELS]
            self.names, self._columns = _named([fields[n] for n in kept]), kept
        else:
            self._time = 0 if len(fields) > 1 and _number(fields[0]) >= UNIX else -1
            self._columns = list(range(self._time + 1, len(fields)))
            self.names = _named([f"c{n}" for n in range(len(self._columns))])
        self._width = len(fields)
        return header


def _named(names: list[str]) -> tuple[str, ...]:
    if not names or len(names) > MAX_CHANNELS:
        raise InputError(f"the first line has {len(names)} channels; give 1 to {MAX_CHANNELS}")
    if len(set(names)) != len(names) or not all(0 < len(name) <= MAX_NAME for name in names):
        raise InputError("the first line names a channel twice, or not at all; give each a name of its own")
    if not all(name.isprintable() for name in names):
        raise InputError("the first line has a name with characters that cannot be printed; rename it")
    return tuple(names)


def _number(told: object) -> float:
    """NaN for what is empty, null or "nan"."""
    if told is None or told == "":
        return math.nan
    if isinstance(told, bool) or not isinstance(told, int | float | str):
        raise ValueError(f"{str(told)[:40]!r} is no number")
    value = float(told) if not isinstance(told, str) or told.strip() else math.nan
    if math.isinf(value):
        raise ValueError(f"{str(told)[:40]!r} is not finite")
    return value


def _is_number(told: object) -> bool:
    try:
        _number(told)
    except ValueError:
        return False
    return True


def parse_time(told: object) -> float:
    """Unix seconds of a number (seconds to nanoseconds, by its size) or of ISO 8601 text; without a zone UTC.

    Raises ValueError for anything else.
    """
    if isinstance(told, str):
        try:
            told = float(told)
        except ValueError:
            when = datetime.fromisoformat(str(told).strip().strip('"'))
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if isinstance(told, bool) or not isinstance(told, int | float) or not math.isfinite(told):
        raise ValueError(f"{told!r:.40} is no time")
    unit = next((unit for most, unit in _UNITS if abs(told) < most), 0.0)
    if not unit:
        raise ValueError(f"{told!r:.40} is no time")
    return told / unit


def read_batches(file: int, lines: Lines) -> Iterator[Batch]:
    """Batches of what lies ready in a file descriptor, until its end.

    After a second without news an empty batch, so that whoever asks can see to other things.
    """
    rest, skipping = b"", False
    while True:
        if not select.select([file], [], [], WAIT_S)[0]:
            yield lines.batch([])
            continue
        data = os.read(file, BLOCK)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\n")
        if skipping and whole:
            whole, skipping = whole[1:], False
        if len(rest) > MAX_LINE:
            lines.count += 1
            lines._refuse(f"over {MAX_LINE >> 10} KB without an end") if not skipping else None
            rest, skipping = b"", True
        if whole:
            yield lines.batch(whole)
    if rest.strip() and not skipping:
        yield lines.batch([rest])


def tell(line: str) -> None:
    print(f"edgewise: {line}", file=sys.stderr, flush=True)
