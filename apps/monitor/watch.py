"""One series watched for ever: learn what is normal, score what comes, tell alarms, survive a restart."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from apps.monitor.lines import Batch
from runtimes.alarms import AlarmEvent, AlarmRules, Alarms
from runtimes.errors import InputError
from runtimes.files import write_atomic
from runtimes.profile import Profile, profile_of
from runtimes.stream import Scores

SCHEMA = 1
SAVE_S = 5.0  # seconds between two saves of the state, where no alarm asks for one
MAX_STATE_BYTES = 64 << 20
MAX_LEARN = 1_000_000


class Watch:
    """`push` takes what came and gives what is to be told. Memory is bounded by `learn` points, once.

    With a `state` file it goes on where it was: points up to the last one it saw are passed over.
    """

    def __init__(self, model: Any, learn: int, state: Path | None = None) -> None:
        least = 3 * model.limits["window"]
        if not least <= learn <= MAX_LEARN:
            raise InputError(f"--learn {learn}: give {least} to {MAX_LEARN} points")
        self.model, self.learn, self.file = model, learn, state
        self.names: tuple[str, ...] = ()
        self.profile: Profile | None = None
        self.stream: Any = None
        self.alarms: Alarms | None = None
        self.last = float("-inf")
        self.seen = self.late = 0
        self._times, self._values = np.empty(0), np.empty((0, 0))
        self._saved = time.monotonic()
        if state is not None and state.exists():
            self._restore(state)

    def push(self, batch: Batch) -> tuple[np.ndarray, Scores | None, list[AlarmEvent]]:
        """(times of the points that were new, their scores, alarms); no scores while it still learns.

        Raises InputError for other channels than before.
        """
        times, values = self._new(batch)
        self.seen += len(times)
        if self.profile is None:
            times, values = self._learned(times, values)
        if self.profile is None or self.alarms is None or not len(times):
            return times, None, []
        scores = self.stream.push(times, values)
        return times, scores, self.alarms.push(times, scores, self.profile.threshold)

    def _new(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The points that are later than all before them."""
        if not len(batch.times):
            return batch.times, batch.values
        if not self.names:
            self.names, self._values = batch.names, np.empty((0, len(batch.names)))
        if batch.names != self.names:
            raise InputError(
                f"the channels are {', '.join(batch.names)}, not {', '.join(self.names)} as before"
            )
        latest = np.maximum.accumulate(np.concatenate([[self.last], batch.times]))
        new = batch.times > latest[:-1]
        self.late += int((~new).sum())
        self.last = float(latest[-1])
        return batch.times[new], batch.values[new]

    def _learned(self, times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gather points until there are enough to fit a profile; the points that are left over."""
        room = self.learn - len(self._times)
        self._times = np.concatenate([self._times, times[:room]])
        self._values = np.concatenate([self._values, values[:room]]) if len(times) else self._values
        if len(self._times) < self.learn:
            return times[:0], values[:0]
        step = float(np.median(np.diff(self._times)))
        self.profile = self.model.fit(self._values, self.names, step)
        self._open(None, None)
        self.stream.push(self._times, self._values)  # so that the first new points have a past
        self._times, self._values = np.empty(0), np.empty((0, len(self.names)))
        return times[room:], values[room:]

    def _open(self, stream: Any, alarms: Any) -> None:
        assert self.profile is not None
        self.stream = self.model.stream(self.profile, stream)
        step = self.profile.step
        rules = AlarmRules(3, cool_down_s=max(600.0, 10 * step), merge_gap_s=max(60.0, 3 * step))
        self.alarms = Alarms(rules, alarms)

    def save(self, now: bool = False) -> None:
        """Write the state, whole or not at all; not more often than every few seconds unless `now`."""
        if self.file is None or not (now or time.monotonic() - self._saved >= SAVE_S):
            return
        told: dict[str, Any] = {
            "schema": SCHEMA, "names": list(self.names), "seen": self.seen, "late": self.late,
            "last": None if np.isinf(self.last) else self.last,
        }  # fmt: skip
        if self.profile is not None and self.alarms is not None:
            told |= {"profile": self.profile.to_json(), "stream": self.stream.state()}
            told |= {"alarms": self.alarms.state()}
        else:
            rows = self._values.astype(object)
            rows[np.isnan(self._values)] = None
            told |= {"times": self._times.tolist(), "values": rows.tolist()}
        write_atomic(self.file, json.dumps(told, allow_nan=False).encode())
        self._saved = time.monotonic()

    def _restore(self, file: Path) -> None:
        try:
            if file.stat().st_size > MAX_STATE_BYTES:
                raise ValueError(f"over {MAX_STATE_BYTES >> 20} MB")
            told = json.loads(file.read_bytes())
            if told["schema"] != SCHEMA:
                raise ValueError(f"schema {told['schema']}")
            self.names = tuple(map(str, told["names"]))
            self.seen, self.late = int(told["seen"]), int(told["late"])
            self.last = float("-inf") if told["last"] is None else float(told["last"])
            self._values = np.empty((0, len(self.names)))
            if "profile" in told:
                self.profile = profile_of(told["profile"])
                self._open(told["stream"], told["alarms"])
            elif told["times"]:
                self._times = np.array(told["times"], float)
                self._values = np.array(told["values"], float).reshape(len(self._times), len(self.names))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{file}: not a state of `edgewise run --stream` ({error}); name another"
            ) from None
