"""Rows of points: how they are packed, written, read and thinned out."""

import math
import sqlite3
from typing import Any

import numpy as np

from runtimes.profile import PARTS
from runtimes.stream import Scores

_KEPT = "time, seen, score, severity, expected, shares, parts"


def write(
    file: sqlite3.Connection, series: int, times: np.ndarray, values: np.ndarray, scores: Scores | None
) -> None:
    """Points (n,) with what was told of them; None: unscored."""
    packed = [row.tobytes() for row in values.astype("<f8")]
    if scores is None:
        told: Any = [(None,) * 5] * len(times)
    else:
        expected, shares = scores.expected.astype("<f4"), scores.channels.astype("<f4")
        parts = np.rint(np.nan_to_num(scores.parts) * 255).clip(0, 255).astype(np.uint8)
        told = [
            (None,) * 5
            if math.isnan(scores.score[at])
            else (float(scores.score[at]), float(scores.severity[at]), expected[at].tobytes(),
                  shares[at].tobytes(), parts[at].tobytes())
            for at in range(len(times))
        ]  # fmt: skip
    file.executemany(
        "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(series, time, seen, *row) for time, seen, row in zip(times.tolist(), packed, told, strict=True)],
    )


def seen(
    file: sqlite3.Connection, series: int, after: float, channels: int, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) and values (n, channels) of the points after `after`; `most`: the newest ones only."""
    found = file.execute(
        "SELECT time, seen FROM points WHERE series = ? AND time > ? ORDER BY time DESC LIMIT ?",
        [series, after if math.isfinite(after) else -1.0, -1 if most is None else most],
    ).fetchall()[::-1]
    times = np.array([time for time, _ in found], dtype=np.float64)
    values = np.frombuffer(b"".join(data for _, data in found), "<f8").reshape(len(found), channels)
    return times, values


def read(
    file: sqlite3.Connection, series: int, since: float, until: float, most: int, after: bool = False
) -> dict[str, Any]:
    """Columns of the newest `most` points (with `after`: the oldest of them) of a time, JSON-able."""
    order = "ASC" if after else "DESC"
    found = file.execute(
        f"SELECT {_KEPT} FROM points WHERE series = ? AND time > ? AND time <= ? ORDER BY time {order} "
        "LIMIT ?",
        [series, since, until, most],
    ).fetchall()
    found = found if after else found[::-1]
    return {
        "times": [row[0] for row in found],
        "values": [unpack(row[1], "<f8") for row in found],
        "scores": [row[2] for row in found],
        "severity": [row[3] for row in found],
        "expected": [unpack(row[4], "<f4") for row in found],
        "shares": [unpack(row[5], "<f4") for row in found],
        "parts": [None if row[6] is None else _parts(row[6]) for row in found],
    }


def _parts(data: bytes) -> dict[str, float]:
    """The shares of the parts of the evidence."""
    return {name: round(one / 255, 3) for name, one in zip(PARTS, data, strict=False)}


def scored(file: sqlite3.Connection, series: int, since: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and scores (n,) of the newest points that have one, in order."""
    found = file.execute(
        "SELECT time, score FROM points WHERE series = ? AND time >= ? ORDER BY time DESC LIMIT ?",
        [series, since, most],
    ).fetchall()[::-1]
    table = np.array([row for row in found if row[1] is not None], dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def newest(file: sqlite3.Connection, series: int) -> dict[str, Any]:
    """Values and score of the newest point; nothing where there is none."""
    query = "SELECT seen, score, severity FROM points WHERE series = ? ORDER BY time DESC LIMIT 1"
    row = file.execute(query, [series]).fetchone()
    return {} if row is None else {"values": unpack(row[0], "<f8"), "score": row[1], "severity": row[2]}


def unpack(data: bytes | None, kind: str) -> list[float | None] | None:
    """A point's numbers, None where one is missing; None where there are none."""
    if data is None:
        return None
    return [None if math.isnan(value) else value for value in np.frombuffer(data, kind).tolist()]


def thin(file: sqlite3.Connection, series: int, oldest: float, keep_points: int, safe: float) -> int:
    """Deletes points older than `oldest`, but none after `safe`, and all beyond the newest `keep_points`.

    How many went.
    """
    query = "SELECT time FROM points WHERE series = ? ORDER BY time DESC LIMIT 1 OFFSET ?"
    row = file.execute(query, [series, keep_points]).fetchone()
    cut = max(min(oldest, safe), row[0] if row else -1.0)
    return file.execute("DELETE FROM points WHERE series = ? AND time <= ?", [series, cut]).rowcount
