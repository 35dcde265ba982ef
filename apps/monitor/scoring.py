"""The one writer: what came in together is checked, scored and written in one transaction.

So a point that was acknowledged is on the disk with its score, its alarm and the alerts that are due; after a
kill nothing of it is missing, and nothing is told twice. Runs in one thread; others only read.
"""

import json
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from apps.monitor import live as lives
from apps.monitor import outbox, rows
from apps.monitor.alarm_rows import (
    by_share,
    close_alarm,
    farthest,
    id_of,
    open_alarm,
    raise_peak,
    shared,
    shared_anew,
)
from apps.monitor.config import MonitorConfig
from apps.monitor.live import Live
from apps.monitor.points import Part
from apps.web.guard import where_it_broke
from apps.web.replies import Refused, clip
from runtimes.alarms import AlarmEvent
from runtimes.errors import InputError
from runtimes.stream import Scores, advance

log = logging.getLogger("edgewise.web")
WINDOWS = 16  # of a model's, that a series is learned from where nothing else is said
LEARN_SECONDS = 0.1  # of one turn, so that a thousand new series keep nobody waiting
RETRY = 100  # points after which a series that taught nothing is tried again


@dataclass(frozen=True)
class Taken:
    """What became of a request's points."""

    stored: int
    late: int
    repeated: int
    alarms: tuple[str, ...] = ()


@dataclass
class Fresh:
    """New points of one series in a transaction."""

    live: Live
    times: list[np.ndarray]
    values: list[np.ndarray]


class Scorer:
    """Series, model and file together. Raises InputError for a model that is no detector."""

    def __init__(self, file: sqlite3.Connection, model: Any, config: MonitorConfig, identity: str) -> None:
        if model.describe().get("task") != "anomaly-detection":
            raise InputError("the bundle is no detector; give one of the task anomaly-detection")
        self.file, self.model, self.config = file, model, config
        self.warm_up = config.warm_up or max(512, WINDOWS * model.limits["window"])
        self.series: dict[str, Live] = {}
        self.ripe: dict[str, int] = {}  # series that have enough to learn from: not before this many points
        self.told: Callable[[], None] = lambda: None  # called when alerts are due
        self.scored = self.unscored = self.opened = 0
        self._adopt(identity)
        self.series = lives.read_all(file)
        self._find_ripe()

    def commit(self, requests: Sequence[Sequence[Part]]) -> list[Taken | Refused]:
        """Stores the points of several requests: what became of each, in their order.

        Raises Refused (503) where nothing could be written, such as on a full disk: then nothing was.
        """
        fresh: dict[str, Fresh] = {}
        results: list[Taken | Refused] = []
        try:
            with self.transaction():
                for parts in requests:
                    try:
                        self._check(parts)
                        results.append(self._take(parts, fresh))
                    except Refused as refused:
                        results.append(refused)
                events = self._write(list(fresh.values()))
        except Exception as error:
            self.forget(list(fresh))
            if not isinstance(error, sqlite3.Error):
                raise
            log.error("nothing could be stored: %s", where_it_broke(error))
            line = "the points could not be written; see the space and rights of the service's folder"
            raise Refused(503, line, {"Retry-After": "10"}) from error
        if events:
            self.told()
        return results

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written in the block, or nothing."""
        self.file.execute("BEGIN IMMEDIATE")
        try:
            yield self.file
            self.file.execute("COMMIT")
        except BaseException:
            if self.file.in_transaction:
                self.file.execute("ROLLBACK")
            raise

    def _check(self, parts: Sequence[Part]) -> None:
        """Raises Refused (422): other channels than before, more series than may be."""
        most = min(self.model.limits["max_channels"], 64)
        new = {part.series for part in parts} - self.series.keys()
        if new and len(self.series) + len(new) > self.config.max_series:
            raise Refused(422, f"{self.config.max_series} series are the most here; delete one or send fewer")
        for part in parts:
            known, width = self.series.get(part.series), part.values.shape[1]
            if known is None and width > most:
                raise Refused(422, f"series {clip(part.series)} has {width} channels; the model takes {most}")
            if known is not None and width != len(known.channels):
                held = len(known.channels)
                raise Refused(
                    422, f"series {clip(part.series)} has {held} channels, not {width}; send them all"
                )
            if known is not None and part.names is not None and set(part.names) != set(known.channels):
                names = clip(", ".join(known.channels), 100)
                raise Refused(422, f"series {clip(part.series)} has the channels {names}; send those")

    def _take(self, parts: Sequence[Part], fresh: dict[str, Fresh]) -> Taken:
        """Keeps what is newer than all before; counts what is not."""
        stored = late = repeated = 0
        for part in parts:
            live = self.series.get(part.series) or self._new(part)
            one = fresh.setdefault(part.series, Fresh(live, [], []))
            new = part.times > live.last_time
            same = self._known(one, part.times[~new])
            behind = int((~new).sum()) - same
            live.repeated, live.late = live.repeated + same + part.repeated, live.late + behind
            stored, late, repeated = stored + int(new.sum()), late + behind, repeated + same + part.repeated
            if new.any():
                one.times.append(part.times[new])
                one.values.append(_ordered(part, live.channels)[new])
                live.last_time = float(part.times[-1])
        return Taken(stored, late, repeated)

    def _known(self, one: Fresh, times: np.ndarray) -> int:
        """How many of these times the series has: in the file, or in this transaction."""
        query = "SELECT 1 FROM points WHERE series = ? AND time = ?"
        waiting = {time for found in one.times for time in found.tolist()} if len(times) else set()
        return sum(
            time in waiting or self.file.execute(query, [one.live.id, time]).fetchone() is not None
            for time in times.tolist()
        )

    def _new(self, part: Part) -> Live:
        width = part.values.shape[1]
        names = part.names or (("value",) if width == 1 else tuple(f"c{at}" for at in range(width)))
        now = time.time()
        query = "INSERT INTO series (name, channels, made) VALUES (?, ?, ?)"
        made = self.file.execute(query, [part.series, json.dumps(names), now])
        live = self.series[part.series] = Live(made.lastrowid or 0, part.series, names, now)
        return live

    def _write(self, fresh: Sequence[Fresh]) -> list[AlarmEvent]:
        """Scores and writes the points, alarms and alerts of a transaction."""
        events: list[AlarmEvent] = []
        told = self._score([one for one in fresh if one.times and one.live.profile is not None])
        for one in fresh:
            live = one.live
            if one.times:
                times, values = np.concatenate(one.times), np.concatenate(one.values)
                scores = told.get(live.name)
                rows.write(self.file, live.id, times, values, scores)
                live.count += len(times)
                live.since_state += len(times)
                live.arrived, live.newest = time.time(), _newest(values, scores)
                events += self._judge(live, times, values, scores)
                if live.profile is None and live.count >= self.warm_up:
                    self.ripe.setdefault(live.name, 0)
            lives.write(live, self.file)
        return events

    def _score(self, fresh: Sequence[Fresh]) -> dict[str, Scores]:
        """Scores by series, in common engine calls. What cannot be scored is stored without, and told."""
        failed: list[Exception] = []
        _apart(self._wake, [one for one in fresh if one.live.stream is None], failed)
        told = _apart(self._advance, [one for one in fresh if one.live.stream is not None], failed)
        self.scored += sum(len(scores.score) for scores in told.values())
        if failed:
            lost = [one for one in fresh if one.live.name not in told]
            self.unscored += sum(len(times) for one in lost for times in one.times)
            names = clip(", ".join(one.live.name for one in lost), 200)
            log.error(
                "points of %d series were not scored: %s: %s", len(lost), names, where_it_broke(failed[0])
            )
        return told

    def _wake(self, fresh: Sequence[Fresh]) -> dict[str, Scores]:
        lives.wake([one.live for one in fresh if one.live.stream is None], self.model, self.file)
        return {}

    def _advance(self, fresh: Sequence[Fresh]) -> dict[str, Scores]:
        self._wake(fresh)
        pushes = [(one.live.stream, np.concatenate(one.times), np.concatenate(one.values)) for one in fresh]
        found = advance(self.model, pushes)  # type: ignore[arg-type]
        return {one.live.name: scores for one, scores in zip(fresh, found, strict=True)}

    def _judge(
        self, live: Live, times: np.ndarray, values: np.ndarray, scores: Scores | None
    ) -> list[AlarmEvent]:
        """Alarms of these points, written with the alerts that they ask for."""
        threshold = live.threshold
        if scores is None or live.alarms is None or threshold is None:
            return []
        events = live.alarms.push(times, scores, threshold)
        now = time.time()
        for event in events:
            if event.kind == "opened":
                far = farthest(self.file, live, event.start)
                channels = by_share(live, event.channels, far)
                id = live.open_alarm = open_alarm(self.file, live, event, channels, threshold, now)
                self.opened += 1
            else:
                channels = shared_anew(self.file, id_of(live, event), live, event.channels)
                id, live.open_alarm = close_alarm(self.file, live, event, channels, now), None
            outbox.add(self.file, alert(live.name, event, channels, id, threshold, now), now)
        run = live.alarms.state()["run"] if live.open_alarm else None
        if live.open_alarm and run:
            raise_peak(self.file, live.open_alarm, live, run)
        self._drift(live, times, values, scores)
        return events

    def _drift(self, live: Live, times: np.ndarray, values: np.ndarray, scores: Scores) -> None:
        """Writes into the log when a series seems to have changed for good, and when it came back."""
        if live.drift is None:
            return
        found = live.drift.push(times, scores.score, values)
        if found is not None:
            write_log(self.file, live.name, "drift", "edgewise", asdict(found))
        elif live.drifted and not live.drift.drifted:
            write_log(self.file, live.name, "drift over", "edgewise", {})
        live.drifted = live.drift.drifted

    def learn_some(self) -> None:
        """Learns the profiles of series that have enough points, for a moment."""
        until = time.monotonic() + LEARN_SECONDS
        for name, least in list(self.ripe.items()):
            live = self.series.get(name)
            if live is None or live.profile is not None:
                del self.ripe[name]
            elif live.count >= least:
                try:
                    with self.transaction():
                        self._learn(live)
                except BaseException:
                    self.forget([name])
                    raise
                if time.monotonic() > until:
                    return

    def waiting(self) -> bool:
        """Whether some series could be learned now."""
        return any(
            name in self.series and self.series[name].count >= least for name, least in self.ripe.items()
        )

    def _learn(self, live: Live) -> None:
        times, values = rows.seen(self.file, live.id, -math.inf, len(live.channels), self.warm_up)
        try:
            lives.learn(live, self.model, times, values)
        except InputError as error:
            self.ripe[live.name] = live.count + RETRY
            write_log(self.file, live.name, "not learned", "edgewise", {"why": str(error)})
            return
        lives.write(live, self.file)
        del self.ripe[live.name]
        detail = {
            "points": len(times),
            "threshold": live.threshold,
            "step": lives.usual_step(times),
        }
        write_log(self.file, live.name, "learned", "edgewise", detail)

    def forget(self, names: Sequence[str]) -> None:
        """After a transaction that failed: all is again as the file says."""
        held = lives.read_all(self.file)
        for name in names:
            if name in held:
                held[name].arrived = self.series[name].arrived
                self.series[name] = held[name]
            else:
                self.series.pop(name, None)
        self._find_ripe()

    def _find_ripe(self) -> None:
        self.ripe = {
            name: self.ripe.get(name, 0)
            for name, live in self.series.items()
            if live.profile is None and live.count >= self.warm_up
        }

    def _adopt(self, identity: str) -> None:
        """Where another model wrote the file, its profiles say nothing here: they are learned again."""
        with self.transaction() as file:
            row = file.execute("SELECT value FROM about WHERE key = 'model'").fetchone()
            if row is not None and row[0] != identity:
                file.execute(
                    "UPDATE series SET profile = NULL, state = NULL, drift = NULL, state_time = NULL"
                )
                write_log(file, None, "another model", "edgewise", {"before": row[0], "now": identity})
            file.execute("INSERT OR REPLACE INTO about VALUES ('model', ?)", [identity])


def _apart(
    work: Callable[[Sequence[Fresh]], dict[str, Scores]], fresh: Sequence[Fresh], failed: list[Exception]
) -> dict[str, Scores]:
    """`work` on all of them together; where that fails, on each alone: the one that breaks it sleeps."""
    try:
        return work(fresh) if fresh else {}
    except sqlite3.Error:
        raise
    except Exception as error:
        for one in fresh:
            lives.sleep(one.live)  # it may have seen a part of its points
        if len(fresh) == 1:
            failed.append(error)
            return {}
    told: dict[str, Scores] = {}
    for one in fresh:
        told |= _apart(work, [one], failed)
    return told


def alert(
    series: str, event: AlarmEvent, channels: list[dict[str, Any]], alarm: str, threshold: float, now: float
) -> dict[str, Any]:
    """The body of an alert."""
    return {
        "kind": event.kind, "alarm": alarm, "series": series, "start": event.start, "end": event.end,
        "peak_time": event.peak_time, "score": event.peak, "threshold": threshold,
        "severity": event.severity, "channels": channels, "parts": shared(event.parts), "told": now,
    }  # fmt: skip


def write_log(
    file: sqlite3.Connection, series: str | None, kind: str, who: str, detail: dict[str, Any]
) -> None:
    """One line of the log of what changed: learned, drift, refit, threshold, acknowledged …"""
    file.execute(
        "INSERT INTO log (at, series, kind, who, detail) VALUES (?, ?, ?, ?, ?)",
        [time.time(), series, kind, who, json.dumps(detail)],
    )


def _ordered(part: Part, channels: tuple[str, ...]) -> np.ndarray:
    """The values in the series' own order of channels."""
    if part.names is None or part.names == channels:
        return part.values
    return part.values[:, [part.names.index(name) for name in channels]]


def _newest(values: np.ndarray, scores: Scores | None) -> dict[str, Any]:
    told = [None if math.isnan(value) else value for value in values[-1].tolist()]
    known = scores is not None and not math.isnan(scores.score[-1])
    return {
        "values": told,
        "score": float(scores.score[-1]) if known and scores else None,
        "severity": float(scores.severity[-1]) if known and scores else None,
    }
