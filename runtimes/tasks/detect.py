"""Task `anomaly-detection`: one channel's window → the window as expected, and what should come next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.engines import Session
from runtimes.errors import EngineError, InputError
from runtimes.fitting import MIN_WINDOWS, fit
from runtimes.profile import Profile
from runtimes.stream import Scores, Stream, checked_times, usual_step

INPUT, OUTPUT = "values", "expected"
BY_BATCH = ("int8",)  # precisions that scale by the batch: a window goes alone, or its answer would vary
WELL = 0.1  # error of a window, in its own spread, under which it counts as rebuilt


@dataclass(frozen=True)
class Detector:
    """A detector on any engine. `fit` learns what is normal for a series, `score` and `stream` judge it."""

    session: Session
    limits: dict[str, int]
    about: dict[str, Any]

    def fit(
        self, values: Any, names: Sequence[str] | None = None, step: float | None = None,
        threshold: float | str = "pot", period: int | None = None, times: np.ndarray | None = None,
    ) -> Profile:  # fmt: skip
        """The profile of a series of normal points: `values` (n, channels) at steps of `step` seconds.

        `times` (n,) in unix seconds, increasing: gaps in them count as missing points, as a stream takes
        them. Without `step` it is the `usual_step` of theirs, and 1 where there are none either.
        `threshold`: a score, "pot" (one normal point in 10,000 above it) or "quantile" (one in 1,000).
        Raises InputError for other shapes, too many channels, or fewer than three windows of points.
        """
        points, names = self._checked(values, names)
        when = None if times is None else checked_times(times, len(points))
        if step is None:
            step = 1.0 if when is None else usual_step(when)
        if not (math.isfinite(step) and step > 0):
            raise InputError(f"step {step}: give seconds above 0")
        return fit(self, points, names, float(step), period, threshold, when)

    def _checked(self, values: Any, names: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
        try:
            points = np.asarray(values, float)
        except (ValueError, TypeError):
            raise InputError("values must be numbers; give NaN where one is missing") from None
        points = points[:, None] if points.ndim == 1 else points
        most, least = self.limits["max_channels"], MIN_WINDOWS * self.limits["window"]
        if points.ndim != 2 or not 1 <= points.shape[1] <= most:
            raise InputError(
                f"values have shape {points.shape}; give (points, channels), at most {most} channels"
            )
        if len(points) < least:
            raise InputError(f"{len(points)} points are too few to learn from; give at least {least}")
        points = np.where(np.isfinite(points), points, np.nan)
        given = (
            [f"c{number}" for number in range(points.shape[1])] if names is None else list(map(str, names))
        )
        if len(given) != points.shape[1] or len(set(given)) != len(given):
            raise InputError(f"{len(given)} different names for {points.shape[1]} channels; name each one")
        return points, given

    def score(self, values: Any, profile: Profile, times: np.ndarray | None = None) -> Scores:
        """Scores of a whole array (n, channels), as a stream that begins with it would give them.

        `times` (n,) unix seconds as in `fit`; without them no point is missing between two.
        """
        points = np.asarray(values, float)
        points = points[:, None] if points.ndim == 1 else points
        when = np.arange(len(points)) * profile.step if times is None else times
        return self.stream(profile).push(when, points)

    def stream(self, profile: Profile, state: dict[str, Any] | None = None) -> Stream:
        """A stream from its beginning, or from where `state` left it. Raises InputError where they differ."""
        return Stream(self, profile, state)

    def expected(self, windows: np.ndarray) -> np.ndarray:
        """The graph's answer (m, window + patch) for normalised windows (m, window), in batches."""
        window, patch, most = (self.limits[key] for key in ("window", "patch", "max_batch"))
        most = 1 if self.about.get("precision") in BY_BATCH else most
        found = np.empty((len(windows), window + patch), np.float32)
        for start in range(0, len(windows), most):
            block = windows[start : start + most]
            answer = self.session.run({INPUT: block}).get(OUTPUT)
            if answer is None or answer.shape != (len(block), window + patch):
                shape = None if answer is None else answer.shape
                raise EngineError(f"the graph gives {OUTPUT} of shape {shape} for windows {block.shape}")
            found[start : start + most] = answer
        return found

    # What gate and bench ask of every task; an input is a normalised window (window,) here.

    def prepare(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (m, window). Raises InputError where a window has another length."""
        rows = [np.asarray(window, np.float32) for window in windows]
        if any(row.shape != (self.limits["window"],) for row in rows):
            raise InputError(f"a window must have {self.limits['window']} values")
        return np.stack(rows) if rows else np.empty((0, self.limits["window"]), np.float32)

    run = expected

    def answers(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float32 (window + patch,) of each window."""
        return list(self.expected(self.prepare(windows)))

    outputs = answers

    def tokens(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The windows themselves: there are no tokens."""
        return list(self.prepare(windows))

    def verdicts(self, windows: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> list[Any]:
        """How badly each window could be rebuilt, in steps of twice the error."""
        return [int(step) for step in np.rint(self._octaves(windows, outputs))]

    def sureness(self, windows: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> np.ndarray:
        """(windows,): how far each one's error is from the nearest border between two steps, 0 to 0.5."""
        octaves = self._octaves(windows, outputs)
        return np.asarray(0.5 - np.abs(octaves - np.rint(octaves)))

    def _octaves(self, windows: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> np.ndarray:
        """log2 of the error of each window, an error under WELL counted as that."""
        return np.asarray(np.log2(np.maximum(self._errors(windows, outputs), WELL) / WELL))

    def metric(
        self, windows: Sequence[np.ndarray], outputs: Sequence[np.ndarray], truths: Sequence[Any]
    ) -> None:
        """Windows are neither right nor wrong by themselves: series are measured."""

    def _errors(self, windows: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> np.ndarray:
        size = self.limits["window"]
        off = self.prepare(windows) - np.stack([output[:size] for output in outputs])
        return np.asarray(np.sqrt(np.square(off).mean(axis=1)))

    def describe(self) -> dict[str, Any]:
        """bundle, task, variant, precision, engine, engine_version, threads, providers really used."""
        return {**self.about, **self.session.describe()}


def open(
    session: Session, tokenizer: Any, labels: list[str], limits: dict[str, int], about: dict[str, Any]
) -> Detector:
    return Detector(session, limits, about)
