"""Alarms in the file: written as they open and close, read in the words of the API."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from apps.monitor import rows
from apps.monitor.live import Live
from runtimes.alarms import AlarmEvent

_QUERY = (
    "SELECT a.id, s.name, a.start, a.end, a.peak_time, a.score, a.severity, a.threshold, a.channels, "
    "a.opened, a.closed, a.acked, a.acked_by, a.note, a.parts FROM alarms a JOIN series s ON s.id = a.series"
)
_NAMES = ("id", "series", "start", "end", "peak_time", "score", "severity", "threshold", "channels", "opened",
          "closed", "acked", "acked_by", "note", "parts")  # fmt: skip


def open_alarm(
    file: sqlite3.Connection,
    live: Live,
    event: AlarmEvent,
    channels: list[dict[str, Any]],
    threshold: float,
    now: float,
) -> str:
    """Writes what opened; the alarm's id."""
    id = id_of(live, event)
    file.execute(
        "INSERT INTO alarms (id, series, start, peak_time, score, severity, threshold, channels, opened, "
        "parts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [id, live.id, event.start, event.peak_time, event.peak, event.severity, threshold,
         json.dumps(channels), now, json.dumps(shared(event.parts))],
    )  # fmt: skip
    return id


def close_alarm(
    file: sqlite3.Connection, live: Live, event: AlarmEvent, channels: list[dict[str, Any]], now: float
) -> str:
    """Writes what closed; the alarm's id."""
    id = id_of(live, event)
    file.execute(
        "UPDATE alarms SET end = ?, peak_time = ?, score = ?, severity = ?, channels = ?, closed = ?, "
        "parts = ? WHERE id = ?",
        [event.end, event.peak_time, event.peak, event.severity, json.dumps(channels), now,
         json.dumps(shared(event.parts)), id],
    )  # fmt: skip
    return id


def raise_peak(file: sqlite3.Connection, id: str, live: Live, run: dict[str, Any]) -> None:
    """Writes how high an open alarm has risen so far."""
    row = file.execute("SELECT score FROM alarms WHERE id = ?", [id]).fetchone()
    if row is None or row[0] >= run["peak"]:
        return
    channels = json.dumps(shared_anew(file, id, live, run["channels"]))
    file.execute(
        "UPDATE alarms SET peak_time = ?, score = ?, severity = ?, channels = ?, parts = ? WHERE id = ?",
        [run["peak_time"], run["peak"], run["severity"], channels, json.dumps(shared(run["parts"])), id],
    )


def shared(parts: Mapping[str, float]) -> dict[str, float]:
    """The shares of the parts of the evidence, as they are told."""
    return {name: round(share, 3) for name, share in parts.items()}


def id_of(live: Live, event: AlarmEvent) -> str:
    """What names the alarm among those of all series."""
    return f"{live.id}-{event.id}"


def shared_anew(
    file: sqlite3.Connection, id: str, live: Live, shares: Sequence[float]
) -> list[dict[str, Any]]:
    """The channels as they were told when the alarm opened, with the shares that they have now.

    What is expected later in an alarm was forecast from what was odd, so it says little.
    """
    row = file.execute("SELECT channels FROM alarms WHERE id = ?", [id]).fetchone()
    told = {one["name"]: one for one in json.loads(row[0])} if row else {}
    none = {"seen": None, "expected": None, "at": live.last_time}
    return by_share(live, shares, [told.get(name, none) for name in live.channels])


def by_share(
    live: Live, shares: Sequence[float | None], told: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The channels, the one with the largest share of the score first."""
    found = [
        {"name": name} | one | {"share": share and round(share, 4)}
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
    parts = None if told["parts"] is None else json.loads(told["parts"])
    return told | {"channels": json.loads(told["channels"]), "parts": parts}
