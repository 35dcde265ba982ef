"""What another threshold would have done, and why a point scored as it did: from what is stored."""

import math
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.monitor import rows
from apps.monitor.alarm_rows import by_share, farthest
from apps.monitor.live import Live
from apps.web.replies import Refused, clip
from runtimes import thresholds
from runtimes.alarms import AlarmRules, Alarms
from runtimes.errors import InputError
from runtimes.profile import PARTS
from runtimes.stream import Scores

MOST_POINTS = 100_000  # that a preview looks at
MOST_PERIODS = 500
AROUND = 60  # points on each side that an explanation shows
DAY_S = 86_400.0


def preview(file: sqlite3.Connection, live: Live, threshold: float, days: float) -> dict[str, Any]:
    """The alarms that this threshold would have raised over the stored scores, beside the present one's."""
    since = live.last_time - days * DAY_S if math.isfinite(live.last_time) else 0.0
    times, scores = rows.scored(file, live.id, since, MOST_POINTS)
    span = float(times[-1] - times[0]) / DAY_S if len(times) > 1 else 0.0
    there = periods(times, scores, threshold, live.rules)
    now = None
    if live.threshold is not None:
        found = len(periods(times, scores, live.threshold, live.rules))
        now = {"threshold": live.threshold, "alarms": found, "per_day": _rate(found, span)}
    return {
        "threshold": threshold, "alarms": len(there), "per_day": _rate(len(there), span), "now": now,
        "periods": there[-MOST_PERIODS:], "points": len(times), "days": round(span, 4),
    }  # fmt: skip


def labelled(file: sqlite3.Connection, live: Live, windows: Sequence[Sequence[float]]) -> float:
    """The threshold with the best F1 over the stored scores, where anomalies are within these [start, end].

    Raises Refused (422) where that says nothing.
    """
    if any(not start <= end for start, end in windows):
        raise Refused(422, "a window must be [start, end] in unix seconds, with its start first")
    times, scores = rows.scored(file, live.id, -1.0, MOST_POINTS)
    labels = np.zeros(len(times), bool)
    for start, end in windows:
        labels |= (times >= start) & (times <= end)
    try:
        found = thresholds.labelled(scores, labels)
    except InputError:
        line = "must hold some of its scored points, and not all; see its points for the times"
        raise Refused(422, f"series {clip(live.name)}: the windows {line}") from None
    if found <= 0:
        raise Refused(422, f"series {clip(live.name)}: scores do not tell these windows apart; set a number")
    return found


def periods(times: np.ndarray, scores: np.ndarray, threshold: float, rules: AlarmRules) -> list[list[float]]:
    """[start, end, peak] of each alarm that the rules give over scores (n,)."""
    count = len(times)
    none = np.full((count, 1), np.nan)
    shares = np.full((count, len(PARTS)), np.nan)
    told = Scores(scores, np.zeros(count), none, shares, none, none)
    alarms = Alarms(rules)
    events = alarms.push(times, told, threshold)
    closed = [[event.start, event.end, event.peak] for event in events if event.kind == "closed"]
    if events and events[-1].kind == "opened":
        last = events[-1]
        over = times[(scores >= threshold) & (times >= last.start)]
        peak = float(scores[times >= last.start].max())
        closed.append([last.start, float(over[-1]), peak])
    return closed


def explain(file: sqlite3.Connection, live: Live, at: float) -> dict[str, Any]:
    """The point at `at` or the last one before it: channels by share, expected against seen, and around it.

    Raises Refused (404) where none is stored there.
    """
    before = rows.read(file, live.id, -1.0, at, AROUND + 1)
    if not before["times"] or at - before["times"][-1] > 60 + 10 * (live.profile.step if live.profile else 1):
        raise Refused(404, f"series {clip(live.name)} has no point at {at:.0f}; see its points for the times")
    after = rows.read(file, live.id, before["times"][-1], math.inf, AROUND, after=True)
    window = {key: before[key] + after[key] for key in before}
    here = {key: before[key][-1] for key in before}
    far = farthest(file, live, here["times"])
    shares = here["shares"] or [None] * len(live.channels)
    return {
        "time": here["times"], "score": here["scores"], "severity": here["severity"],
        "threshold": live.threshold, "channels": by_share(live, shares, far),
        "parts": here["parts"],
        "window": {"channels": list(live.channels)}
        | {k: v for k, v in window.items() if k not in ("shares", "parts")},
    }  # fmt: skip


def _rate(count: int, days: float) -> float | None:
    return round(count / days, 3) if days > 0 else None
