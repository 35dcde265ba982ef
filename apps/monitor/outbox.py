"""Alerts that are to be sent: written with the alarm, in one transaction, so that a kill loses none.

A webhook gets "opened" and "closed" of the series that it is for. After an "opened" of a series it gets no
other one of that series for its cool-down, nor the "closed" that belongs to it.
"""

import json
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any

MOST_WAITING = 10_000  # alerts of one webhook; more are dropped, and the log of deliveries says so
ATTEMPTS = 10
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 3600.0  # between attempts: 2, 6, 18, 54, 162, 486, 1458, 3600 s …


@dataclass(frozen=True)
class Due:
    """One alert to be sent now."""

    id: str
    webhook: str
    url: str
    secret: str
    body: str
    attempts: int


def add(file: sqlite3.Connection, told: dict[str, Any], now: float) -> None:
    """Writes the alerts of what opened or closed: `told` is their body, with `series`, `alarm` and `kind`."""
    name, alarm, kind = told["series"], told["alarm"], told["kind"]
    for webhook, series, cool_down in file.execute("SELECT id, series, cool_down_s FROM webhooks").fetchall():
        if series is not None and name not in json.loads(series):
            continue
        state = _state(file, webhook, name, alarm, kind, now - cool_down)
        if state is None:
            continue
        id = secrets.token_hex(8)
        body = json.dumps({"delivery": id} | told, ensure_ascii=False)
        ended, said = (None, None) if state == "waiting" else (now, "not sent")
        file.execute(
            "INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
            [id, webhook, alarm, name, kind, body, state, now, now, ended, said],
        )


def _state(
    file: sqlite3.Connection, webhook: str, series: str, alarm: str, kind: str, quiet_from: float
) -> str | None:
    """waiting, cooling (not sent, since one was just before) or dropped; None: not to be told at all."""
    if kind == "closed":
        query = (
            "SELECT 1 FROM deliveries WHERE webhook = ? AND series = ? AND alarm = ? AND state != 'cooling'"
        )
        if file.execute(query, [webhook, series, alarm]).fetchone() is None:
            return None
    else:
        query = (
            "SELECT 1 FROM deliveries WHERE webhook = ? AND series = ? AND made > ? AND kind = 'opened' "
            "AND state IN ('waiting', 'sent')"
        )
        if file.execute(query, [webhook, series, quiet_from]).fetchone() is not None:
            return "cooling"
    query = "SELECT count(*) FROM deliveries WHERE state = 'waiting' AND webhook = ?"
    return "dropped" if file.execute(query, [webhook]).fetchone()[0] >= MOST_WAITING else "waiting"


def due(file: sqlite3.Connection, now: float, most: int) -> list[Due]:
    """Alerts whose time has come, up to `most` of each webhook, the longest due first."""
    query = (
        "SELECT d.id, d.webhook, w.url, w.secret, d.body, d.attempts FROM deliveries d JOIN webhooks w "
        "ON w.id = d.webhook WHERE d.webhook = ? AND d.state = 'waiting' AND d.due <= ? "
        "ORDER BY d.due LIMIT ?"
    )
    webhooks = file.execute("SELECT id FROM webhooks").fetchall()
    return [Due(*row) for (webhook,) in webhooks for row in file.execute(query, [webhook, now, most])]


def next_due(file: sqlite3.Connection) -> float | None:
    """When the next one is due; None where nothing waits."""
    query = (
        "SELECT min((SELECT min(due) FROM deliveries WHERE webhook = w.id AND state = 'waiting')) "
        "FROM webhooks w"
    )
    found: float | None = file.execute(query).fetchone()[0]
    return found


def ended(file: sqlite3.Connection, one: Due, sent: bool, said: str, now: float) -> None:
    """Writes how an attempt ended: sent, to be tried again later, or given up."""
    attempts = one.attempts + 1
    if sent or attempts >= ATTEMPTS:
        file.execute(
            "UPDATE deliveries SET state = ?, attempts = ?, ended = ?, said = ? WHERE id = ?",
            ["sent" if sent else "failed", attempts, now, said, one.id],
        )
        return
    wait = min(FIRST_WAIT_S * 3 ** (attempts - 1), LONGEST_WAIT_S)
    wait *= 0.8 + 0.4 * secrets.randbelow(1000) / 1000  # so that many do not come back at the same moment
    file.execute(
        "UPDATE deliveries SET attempts = ?, due = ?, said = ? WHERE id = ?",
        [attempts, now + wait, said, one.id],
    )
