"""One series watched for ever: learn what is normal, score what comes, tell alarms and drift, survive a
restart."""

import base64
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from apps.monitor.lines import Batch
from runtimes.alarms import AlarmEvent, AlarmRules, Alarms
from runtimes.drift import Drift, DriftEvent
from runtimes.errors import InputError
from runtimes.files import write_atomic
from runtimes.fitting import POINTS, SHAPES
from runtimes.profile import Profile, profile_of
from runtimes.stream import Scores, checked_times
from runtimes.thresholds import RISK, Spot, spot_from, spot_of

SCHEMA = 2
SAVE_S = 5.0  # seconds between two saves of the state, where no alarm asks for one
MAX_STATE_BYTES = 64 << 20
MAX_LEARN = 1_000_000


class Watch:
    """`push` takes what came and gives what is to be told. Memory is bounded by `learn` points, once.

    `threshold`: "pot", "quantile" or a score as for `Detector.fit`, or "spot": the tail, and with it the
    threshold, moves on with what comes. None: as the state has it, else "pot". With a `state` file it goes on
    where it was: points up to the last one it saw are passed over. `identity` names the model's content.
    """

    def __init__(
        self, model: Any, learn: int, state: Path | None = None, threshold: float | str | None = None,
        identity: str = "",
    ) -> None:  # fmt: skip
        self.least = 3 * model.limits["window"]
        if not self.least <= learn <= MAX_LEARN:
            raise InputError(f"--learn {learn}: give {self.least} to {MAX_LEARN} points")
        self.model, self.learn, self.file, self.identity = model, learn, state, identity
        self.threshold = threshold
        self.names: tuple[str, ...] = ()
        self.profile: Profile | None = None
        self.stream: Any = None
        self.alarms: Alarms | None = None
        self.drift: Drift | None = None
        self.spot: Spot | None = None
        self.last = float("-inf")
        self.seen = self.late = 0
        self.pace = 0.0  # seconds between two points, the median while it learned
        self._times, self._values = np.empty(0), np.empty((0, 0))
        self._saved = time.monotonic()
        if state is not None and state.exists():
            self._restore(state)

    def push(self, batch: Batch) -> tuple[np.ndarray, Scores | None, list[AlarmEvent | DriftEvent]]:
        """(times of the points that were new, their scores, events); no scores while it still learns.

        Raises InputError for other channels than before.
        """
        times, values = self._new(batch)
        self.seen += len(times)
        if self.profile is None:
            times, values = self._learned(times, values)
        if self.profile is None or self.alarms is None or self.drift is None or not len(times):
            return times, None, []
        scores = self.stream.push(times, values)
        thresholds = self._thresholds(scores.score, self.profile.threshold)
        events: list[AlarmEvent | DriftEvent] = [*self.alarms.push(times, scores, thresholds)]
        drifted = self.drift.push(times, scores.score, values)
        return times, scores, events if drifted is None else [*events, drifted]

    def _thresholds(self, scores: np.ndarray, fitted: float) -> float | np.ndarray:
        """The fitted threshold, or with "spot" the one (n,) that stood when each point came."""
        if self.spot is None:
            return fitted
        found = np.empty(len(scores))
        for row, score in enumerate(scores.tolist()):
            found[row] = self.spot.tail.threshold(self.spot.risk)
            self.spot, _ = self.spot.update(score)
        return found

    def _new(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The points that are later than all before them."""
        if not len(batch.times):
            return batch.times, batch.values
        if not self.names:
            self._named(batch.names)
        if batch.names != self.names:
            raise InputError(
                f"the channels are {', '.join(batch.names)}, not {', '.join(self.names)} as before"
            )
        latest = np.maximum.accumulate(np.concatenate([[self.last], batch.times]))
        new = batch.times > latest[:-1]
        self.late += int((~new).sum())
        self.last = float(latest[-1])
        return batch.times[new], batch.values[new]

    def _named(self, names: tuple[str, ...]) -> None:
        """Take these channels, unless so many points of them are more than a fit looks at."""
        room = self.model.limits["max_channels"]
        if len(names) > room:
            raise InputError(f"{len(names)} channels; this model takes at most {room}, so choose among them")
        most = max(POINTS // max(len(names), 1), self.least)
        if self.learn > most:
            raise InputError(f"--learn {self.learn}: of {len(names)} channels give at most {most} points")
        self.names, self._values = names, np.empty((0, len(names)))

    def _learned(self, times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gather points until there are enough to fit a profile; the points that are left over."""
        room = max(self.learn - len(self._times), 0)
        self._times = np.concatenate([self._times, times[:room]])
        self._values = np.concatenate([self._values, values[:room]]) if len(times) else self._values
        if len(self._times) < self.learn:
            return times[:0], values[:0]
        asked = "pot" if self.threshold in (None, "spot") else self.threshold
        self.profile = self.model.fit(self._values, self.names, threshold=asked, times=self._times)
        self.pace = float(np.median(np.diff(self._times)))
        self._open(None, None, None)
        self.spot = spot_of(self.profile.tail, SHAPES) if self.threshold == "spot" else None
        self.stream.push(self._times, self._values)  # so that the first new points have a past
        self._times, self._values = np.empty(0), np.empty((0, len(self.names)))
        return times[room:], values[room:]

    def _open(self, stream: Any, alarms: Any, drift: Any) -> None:
        assert self.profile is not None
        self.stream = self.model.stream(self.profile, stream)
        pace = self.pace  # and not the step, which of an uneven series is long
        rules = AlarmRules(3, cool_down_s=max(600.0, 10 * pace), merge_gap_s=max(60.0, 3 * pace))
        self.alarms = Alarms(rules, alarms)
        self.drift = Drift(self.profile, state=drift)

    def _chosen(self, spot: Any) -> None:
        """The threshold that was asked for, of a profile from the state; where none was, the state's own."""
        assert self.profile is not None
        tail = self.profile.tail
        if self.threshold == "spot" or (self.threshold is None and spot is not None):
            self.spot = spot_of(tail, SHAPES) if spot is None else spot_from(spot)
        elif self.threshold == "pot":
            self.profile = replace(self.profile, threshold=tail.threshold(RISK), chosen=f"pot {RISK:g}")
        elif self.threshold == "quantile" and not self.profile.chosen.startswith("quantile"):
            raise InputError("was learned without a quantile, which needs the points again; name another")
        elif isinstance(self.threshold, float):
            self.profile = replace(self.profile, threshold=self.threshold, chosen="given")

    def save(self, now: bool = False) -> None:
        """Write the state, whole or not at all; not more often than every few seconds unless `now`."""
        if self.file is None or not (now or time.monotonic() - self._saved >= SAVE_S):
            return
        told: dict[str, Any] = {
            "schema": SCHEMA, "model": self.identity, "names": list(self.names),
            "seen": self.seen, "late": self.late,
            "last": None if np.isinf(self.last) else self.last,
        }  # fmt: skip
        if self.profile is not None and self.alarms is not None and self.drift is not None:
            told |= {"profile": self.profile.to_json(), "stream": self.stream.state()}
            told |= {"alarms": self.alarms.state(), "drift": self.drift.state()}
            told["pace"] = self.pace
            told |= {"spot": None if self.spot is None else self.spot.state()}
        else:
            told |= {"times": _text(self._times), "values": _text(self._values)}
        try:
            write_atomic(self.file, json.dumps(told, allow_nan=False).encode())
        except OSError as error:
            raise InputError(f"{self.file}: {error.strerror}; free some space, or name another") from None
        self._saved = time.monotonic()

    def _restore(self, file: Path) -> None:
        try:
            if not file.is_file():
                raise ValueError("no plain file")
            if file.stat().st_size > MAX_STATE_BYTES:
                raise ValueError(f"over {MAX_STATE_BYTES >> 20} MB")
            told = json.loads(file.read_bytes())
            if told["schema"] != SCHEMA:
                raise ValueError(f"schema {told['schema']}")
            if told["model"] != self.identity:
                raise InputError("is of another model; name another, or the bundle that it was made with")
            self._named(tuple(map(str, told["names"])))
            self.seen, self.late = int(told["seen"]), int(told["late"])
            self.last = float("-inf") if told["last"] is None else float(told["last"])
            if "profile" in told:
                self.profile = profile_of(told["profile"])
                if self.profile.names != self.names:
                    raise ValueError("its profile has other channels")
                self.pace = float(told["pace"])
                self._open(told["stream"], told["alarms"], told["drift"])
                self._chosen(told["spot"])
            else:
                self._times = checked_times(_floats(told["times"]), len(_floats(told["times"])))
                self._values = _floats(told["values"]).reshape(len(self._times), len(self.names))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{file}: not a state of `edgewise run --stream` ({error}); name another"
            ) from None


def _text(values: np.ndarray) -> str:
    """Numbers as base64 of their eight bytes: NaN is kept, and half a text's length."""
    return base64.b64encode(values.astype("<f8").tobytes()).decode()


def _floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f8").astype(float)
