"""A series as the service holds it: what it learned, its stream and alarms, and how they come back."""

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apps.monitor import rows
from runtimes.alarms import AlarmRules, Alarms
from runtimes.drift import Drift
from runtimes.profile import Profile, profile_of
from runtimes.stream import Stream, advance, usual_step

CHECKPOINT = 64  # points after which a stream's state is written again; as many are pushed again at a restart
SILENT_STEPS = 10.0  # without a point for that many steps, a series counts as silent


@dataclass
class Live:
    """One series. The worker's thread alone changes it; others read what `told` gives.

    `last_time` is that of the newest point, -inf before the first. `state_time` is the point after which
    the stream's written state holds. `newest` is the newest point's values and score, for lists.
    """

    id: int
    name: str
    channels: tuple[str, ...]
    made: float
    last_time: float = -math.inf
    count: int = 0
    late: int = 0
    repeated: int = 0
    profile: Profile | None = None
    chosen: float | None = None  # a threshold that somebody set
    rules: AlarmRules = field(default_factory=AlarmRules)
    rules_set: bool = False  # by somebody
    stream: Stream | None = None
    state_time: float = -math.inf
    since_state: int = 0
    drift: Drift | None = None
    drifted: bool = False  # for good, it seems: a refit may help
    alarms: Alarms | None = None
    alarm_state: str | None = None  # as it is written
    open_alarm: str | None = None
    newest: dict[str, Any] = field(default_factory=dict)
    arrived: float = 0.0  # by our own clock

    @property
    def threshold(self) -> float | None:
        """What holds: the one that was set, else the learned one; None while learning."""
        if self.chosen is not None:
            return self.chosen
        return None if self.profile is None else self.profile.threshold

    def state_at(self, now: float) -> str:
        """alarm, silent, learning or normal."""
        if self.open_alarm:
            return "alarm"
        if self.profile is None:
            return "learning"
        quiet = now - self.arrived > max(SILENT_STEPS * self.profile.step, 30.0)
        return "silent" if quiet else "normal"

    def told(self, now: float) -> dict[str, Any]:
        """The series in the words of the API."""
        return {
            "name": self.name, "channels": list(self.channels), "state": self.state_at(now),
            "points": self.count, "late": self.late, "repeated": self.repeated,
            "last_time": None if math.isinf(self.last_time) else self.last_time,
            "threshold": self.threshold, "learned": None if self.profile is None else self.profile.points,
            "step": None if self.profile is None else self.profile.step,
            "open_alarm": self.open_alarm, "drifted": self.drifted,
            **{"values": None, "score": None, "severity": None} | self.newest,
        }  # fmt: skip


_COLUMNS = (
    "id, name, channels, made, last_time, count, late, repeated, profile, threshold, rules, state_time, "
    "alarm_state"
)


def read_all(file: sqlite3.Connection) -> dict[str, Live]:
    """All series of the file, without their streams."""
    found = {}
    for row in file.execute(f"SELECT {_COLUMNS} FROM series"):
        live = _live(row)
        opened = "SELECT id FROM alarms WHERE series = ? AND closed IS NULL ORDER BY start DESC LIMIT 1"
        live.open_alarm = next((id for (id,) in file.execute(opened, [live.id])), None)
        live.newest = rows.newest(file, live.id)
        live.drifted = _drifted(file, live.name)
        found[live.name] = live
    return found


def _live(row: tuple[Any, ...]) -> Live:
    id, name, channels, made, last, count, late, repeated, profile, chosen, rules, state_time, alarms = row
    learned = None if profile is None else profile_of(profile)
    usual = AlarmRules() if learned is None else rules_for(learned.step)
    return Live(
        id, name, tuple(json.loads(channels)), made, -math.inf if last is None else last, count, late,
        repeated, learned, chosen,
        AlarmRules(**json.loads(rules)) if rules else usual, rules_set=bool(rules),
        state_time=-math.inf if state_time is None else state_time, alarm_state=alarms,
    )  # fmt: skip


def _drifted(file: sqlite3.Connection, name: str) -> bool:
    """Whether the log's last word on it is a drift."""
    query = (
        "SELECT kind, json_extract(detail, '$.kept') FROM log WHERE series = ? AND "
        "kind IN ('drift', 'drift over', 'learned', 'refit', 'deleted') ORDER BY id DESC"
    )
    for kind, kept in file.execute(query, [name]):
        if kind != "refit" or kept == "new":
            return bool(kind == "drift")
    return False


def wake(asleep: Sequence[Live], model: Any, file: sqlite3.Connection) -> None:
    """Brings streams and alarms back: the written state, and the points behind it once more, unjudged."""
    pushes = []
    for live in asleep:
        assert live.profile is not None
        query = "SELECT state, drift FROM series WHERE id = ?"
        state, drift = (
            None if text is None else json.loads(text) for text in file.execute(query, [live.id]).fetchone()
        )
        live.stream = model.stream(live.profile, state)
        live.drift = Drift(live.profile, state=drift)
        live.alarms = _alarms(live)
        times, values = rows.seen(file, live.id, live.state_time, len(live.channels))
        pushes.append((live.stream, times, values))
        live.since_state = len(times)
    for live, (_, times, values), scores in zip(asleep, pushes, advance(model, pushes), strict=True):
        assert live.drift is not None
        live.drift.push(times, scores.score, values)  # what it finds was told before


def _alarms(live: Live) -> Alarms:
    return Alarms(live.rules, json.loads(live.alarm_state) if live.alarm_state else None)


def learn(live: Live, model: Any, times: np.ndarray, values: np.ndarray) -> None:
    """Learns the profile from these points, and lets the stream see the newest of them.

    Raises InputError where they teach nothing, such as a channel without a value.
    """
    live.profile = model.fit(values, names=live.channels, step=usual_step(times), times=times)
    start(live, model, times, values)


def start(live: Live, model: Any, times: np.ndarray, values: np.ndarray) -> None:
    """A new stream for the series' profile, that has seen these points."""
    assert live.profile is not None
    if not live.rules_set:
        live.rules = rules_for(live.profile.step)
    most = model.limits["window"] + model.limits["patch"]
    live.stream = model.stream(live.profile)
    live.stream.push(times[-most:], values[-most:])
    live.drift = Drift(live.profile)
    live.alarms = _alarms(live)
    live.since_state = CHECKPOINT  # so that it is written now


def rules_for(step: float) -> AlarmRules:
    """The rules of a series for which nobody set any: for slow ones, as many points instead of seconds."""
    plain = AlarmRules()
    return AlarmRules(plain.min_points, max(plain.cool_down_s, 10 * step), max(plain.merge_gap_s, 3 * step))


def sleep(live: Live) -> None:
    """Forgets what is not written: the next point wakes the series from the file."""
    live.stream = live.alarms = live.drift = None


def write(live: Live, file: sqlite3.Connection) -> None:
    """Writes all but the points; the stream's state only now and then."""
    if live.alarms is not None:
        live.alarm_state = json.dumps(live.alarms.state())
    file.execute(
        "UPDATE series SET last_time = ?, count = ?, late = ?, repeated = ?, alarm_state = ? WHERE id = ?",
        [live.last_time, live.count, live.late, live.repeated, live.alarm_state, live.id],
    )
    if live.stream is not None and live.since_state >= CHECKPOINT:
        assert live.profile is not None and live.drift is not None
        states = [json.dumps(one.state()) for one in (live.stream, live.drift)]
        file.execute(
            "UPDATE series SET state = ?, drift = ?, state_time = ?, profile = ? WHERE id = ?",
            [*states, live.last_time, json.dumps(live.profile.to_json()), live.id],
        )
        live.state_time, live.since_state = live.last_time, 0


def set_rules(live: Live, rules: AlarmRules) -> None:
    """Other alarm rules, from the next point on; an open alarm goes on."""
    live.rules, live.rules_set = rules, True
    if live.alarms is not None:
        live.alarms = Alarms(rules, live.alarms.state())
