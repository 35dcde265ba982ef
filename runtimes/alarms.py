"""From scores to alarms that people can bear: least length, merging, pauses, nothing told twice."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.profile import PARTS
from runtimes.stream import Scores

SCHEMA = 1
COUNTED = ("points", "open", "calm")  # of a run, beside what an event tells


@dataclass(frozen=True)
class AlarmRules:
    """`min_points` in a row over the threshold open an alarm: a calm point between them begins the count
    anew, a missing one does not. It stays open over calm of up to `merge_gap_s` seconds, and for
    `cool_down_s` seconds after its end no other opens, unless what caused it lasts longer."""

    min_points: int = 3
    cool_down_s: float = 600.0
    merge_gap_s: float = 60.0

    def __post_init__(self) -> None:
        waits = (self.cool_down_s, self.merge_gap_s)
        if self.min_points < 1 or not all(math.isfinite(wait) and wait >= 0 for wait in waits):
            raise InputError("alarm rules: min_points from 1, cool_down_s and merge_gap_s from 0 seconds")


@dataclass(frozen=True)
class AlarmEvent:
    """`kind` "opened" or "closed"; times in unix seconds. `end`: the last point over the threshold so far.

    The rest is of the highest point so far: `channels` and `parts` are shares of its score, `expected` and
    `seen` in the series' own units, None where there was no value.
    """

    kind: str
    id: str
    start: float
    end: float
    peak: float
    peak_time: float
    severity: float
    channels: list[float]
    parts: dict[str, float]
    expected: list[float | None]
    seen: list[float | None]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Alarms:
    """One series' alarms. Points that it has seen before are passed over, so a replay tells nothing twice."""

    def __init__(self, rules: AlarmRules, state: dict[str, Any] | None = None) -> None:
        self.rules = rules
        self._last, self._quiet, self._told = -math.inf, -math.inf, 0
        self._run: dict[str, Any] | None = None  # points over the threshold, an alarm once it is `open`
        if state is not None:
            self._restore(state)

    def push(self, times: Any, scores: Scores, threshold: float | np.ndarray) -> list[AlarmEvent]:
        """What opens and closes with these points (n,), by one threshold or each by its own (n,). Points
        without a score change nothing."""
        events = []
        over = scores.score >= threshold
        for row, time in enumerate(np.asarray(times, float).tolist()):
            if time <= self._last:
                continue
            self._last = time
            if math.isnan(scores.score[row]):
                continue
            if over[row]:
                events += self._risen(time, scores, row)
            elif self._run is not None and not self._run["open"]:
                self._run = None
            elif self._run is not None:
                self._run["calm"] = True
                events += self._ended(time)
        return events

    def _risen(self, time: float, scores: Scores, row: int) -> list[AlarmEvent]:
        closed = self._ended(time)
        run = self._run
        if run is None:
            run = self._run = {"start": time, "points": 0, "open": False, "peak": -math.inf}
        run |= {"end": time, "points": min(run["points"] + 1, self.rules.min_points), "calm": False}
        if scores.score[row] > run["peak"]:
            run |= _peak(time, scores, row)
        if run["open"] or run["points"] < self.rules.min_points or time < self._quiet:
            return closed
        run["open"] = True
        self._told += 1
        run["id"] = f"{int(run['start'])}-{self._told}"
        return [*closed, self._event("opened")]

    def _ended(self, time: float) -> list[AlarmEvent]:
        """Ends an alarm if there was calm for longer than `merge_gap_s`; a lack of points is no calm."""
        run = self._run
        if run is None or not run["calm"] or time - run["end"] <= self.rules.merge_gap_s:
            return []
        event = self._event("closed")
        self._quiet = run["end"] + self.rules.cool_down_s
        self._run = None
        return [event]

    def _event(self, kind: str) -> AlarmEvent:
        run = {key: value for key, value in (self._run or {}).items() if key not in COUNTED}
        return AlarmEvent(kind, **run)

    def state(self) -> dict[str, Any]:
        """JSON-able, of a size that never grows; `Alarms(rules, state)` goes on from it."""
        quiet, last = (None if math.isinf(value) else value for value in (self._quiet, self._last))
        run = None if self._run is None else dict(self._run)
        return {"schema": SCHEMA, "last": last, "quiet": quiet, "told": self._told, "run": run}

    def _restore(self, state: Any) -> None:
        try:
            if state["schema"] != SCHEMA:
                raise ValueError(f"schema {state['schema']}")
            self._last, self._quiet = (
                -math.inf if state[key] is None else float(state[key]) for key in ("last", "quiet")
            )
            self._told, run = int(state["told"]), state["run"]
            if run is not None:
                run = {
                    **run,
                    "points": int(run["points"]),
                    "open": bool(run["open"]),
                    "calm": bool(run["calm"]),
                }
                AlarmEvent("closed", **{k: v for k, v in ({"id": ""} | run).items() if k not in COUNTED})
            self._run = None if run and run["calm"] and not run["open"] else run
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise InputError(
                f"state of alarms: not one that edgewise wrote ({error}); start afresh"
            ) from None


def _peak(time: float, scores: Scores, row: int) -> dict[str, Any]:
    def plain(values: np.ndarray) -> list[float | None]:
        return [None if math.isnan(value) else float(value) for value in values]

    return {
        "peak": float(scores.score[row]),
        "peak_time": time,
        "severity": float(scores.severity[row]),
        "channels": scores.channels[row].tolist(),
        "parts": dict(zip(PARTS, scores.parts[row].tolist(), strict=True)),
        "expected": plain(scores.expected[row]),
        "seen": plain(scores.seen[row]),
    }
