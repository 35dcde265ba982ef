"""Alarms in the file: written as they open and close, read in the words of the API."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from apps.monitor import rows
from apps.monitor.live import Live
from runtimes.alarms import AlarmEvent

_QUERY = (
    "SELECT a.id, s.name, a.start, a.end, a.peak_time, a.score, a.severity, a.threshold, a.channels, "
    "a.opened, a.closed, a.acked, a.acked_by, a.note FROM alarms a JOIN series s ON s.id = a.series"
)
_NAMES = ("id", "series", "start", "end", "peak_time", "score", "severity", "threshold", "channels", "opened",
          "closed", "acked", "acked_by", "note")  # fmt: skip


def write_event(
    file: sqlite3.Connection,
    live: Live,
    event: AlarmEvent,
    channels: list[dict[str, Any]],
    threshold: float,
    now: float,
) -> str:
    """Writes what opened or closed; the alarm's id."""
    id = f"{live.id}-{event.id}"
    told = json.dumps(channels)
    if event.kind == "opened":
        file.execute(
            "INSERT INTO alarms (id, series, start, end, peak_time, score, severity, threshold, channels, "
            "opened) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                id,
                live.id,
                event.start,
                None,
                event.peak_time,
                event.peak,
                event.severity,
                threshold,
                told,
                now,
            ],
        )
    else:
        file.execute(
            "UPDATE alarms SET end = ?, peak_time = ?, score = ?, severity = ?, channels = ?, closed = ? "
            "WHERE id = ?",
            [event.end, event.peak_time, event.peak, event.severity, told, now, id],
        )
    return id


def raise_peak(file: sqlite3.Connection, id: str, live: Live, run: dict[str, Any]) -> None:
    """Writes how high an open alarm has risen so far."""
    query = "SELECT 1 FROM alarms WHERE id = ? AND score < ?"
    if file.execute(query, [id, run["peak"]]).fetchone() is None:
        return
    told = json.dumps(by_share(live, run["channels"], farthest(file, live, run["peak_time"])))
    file.execute(
        "UPDATE alarms SET peak_time = ?, score = ?, severity = ?, channels = ? WHERE id = ?",
        [run["peak_time"], run["peak"], run["severity"], told, id],
    )


def by_share(
    live: Live, shares: Sequence[float | None], told: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The channels, the one with the largest share of the score first."""
    found = [
        {"name": name, "share": share and round(share, 4)} | one
        for name, share, one in zip(live.channels, shares, told, strict=True)
    ]
    return sorted(found, key=lambda one: -(one["share"] or 0))


def farthest(file: sqlite3.Connection, live: Live, at: float) -> list[dict[str, Any]]:
    """Of each channel the point up to `at` that was farthest from what was expected: seen, expected, when.

    A score looks back over a patch of points, so it is highest after what was odd.
    """
    patch = len(live.profile.ahead) if live.profile is not None else 1
    last = rows.read(file, live.id, -1.0, at, patch)
    found = []
    for place in range(len(live.channels)):
        points = [
            (row[place], None if other is None else other[place], time)
            for row, other, time in zip(last["values"], last["expected"], last["times"], strict=True)
        ]
        known = [one for one in points if one[0] is not None and one[1] is not None]
        far = (
            max(known, key=lambda one: abs(one[0] - one[1])) if known else (points or [(None, None, at)])[-1]
        )
        found.append({"seen": far[0], "expected": far[1], "at": far[2]})
    return found


def read(
    file: sqlite3.Connection,
    series: Sequence[str] | None = None,
    state: str = "all",
    before: float | None = None,
    most: int = 100,
) -> list[dict[str, Any]]:
    """Alarms, the newest first. `series`: only of these; `state`: all, open or unacknowledged;
    `before`: opened earlier than that."""
    asked: list[tuple[str, list[Any]]] = [("1", [])]
    if series is not None:
        asked.append((f"s.name IN ({', '.join('?' * len(series))})", [*series]))
    if before is not None:
        asked.append(("a.opened < ?", [before]))
    asked += [("a.closed IS NULL", [])] if state == "open" else []
    asked += [("a.acked IS NULL", [])] if state == "unacknowledged" else []
    where = " AND ".join(clause for clause, _ in asked)
    values = [value for _, found in asked for value in found]
    query = f"{_QUERY} WHERE {where} ORDER BY a.opened DESC, a.start DESC LIMIT ?"
    return [_told(row) for row in file.execute(query, [*values, most])]


def get(file: sqlite3.Connection, id: str) -> dict[str, Any] | None:
    """One alarm; None where there is none of that id."""
    row = file.execute(f"{_QUERY} WHERE a.id = ?", [id]).fetchone()
    return None if row is None else _told(row)


def acknowledge(file: sqlite3.Connection, id: str, who: str, note: str, now: float) -> bool:
    """Whether it is this call that acknowledged it: who was first stays."""
    query = "UPDATE alarms SET acked = ?, acked_by = ?, note = ? WHERE id = ? AND acked IS NULL"
    return file.execute(query, [now, who, note, id]).rowcount > 0


def _told(row: tuple[Any, ...]) -> dict[str, Any]:
    told = dict(zip(_NAMES, row, strict=True))
    return told | {"channels": json.loads(told["channels"])}
