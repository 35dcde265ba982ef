"""Scores as points arrive: causal, in bounded memory, and the same for a whole array as for a stream.

Every `patch` points the model is asked about the window that ends there. Its forecast scores the next `patch`
points as they come; how well it could rebuild the window, and the window's level and spread, are slower
parts of the score (`runtimes.evidence`), held until the next hop.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.evidence import Piece, combine, shapes, weigh
from runtimes.profile import PARTS, Profile

SCHEMA = 1
BLOCK = 4096  # points of a stream that are worked on at once
LONG_GAP = 64  # points of a gap, from which on it is an outage and says no more of how even a series is
UNEVEN = 0.2  # points that may be missing for each that came
LATE = 1.5  # steps between two points from which on some are missing between them


@dataclass(frozen=True, eq=False)
class Scores:
    """Of n points, NaN while warming up and where every channel is missing.

    `score` (n,); `severity` (n,) 0..1; `channels` (n, channels) and `parts` (n, PARTS): their shares of the
    score, each adding up to 1; `expected` and `seen` (n, channels) in the series' own units.
    """

    score: np.ndarray
    severity: np.ndarray
    channels: np.ndarray
    parts: np.ndarray
    expected: np.ndarray
    seen: np.ndarray


class Stream:
    """One series as it comes. `push` takes what arrived, `state` is what a restart needs."""

    def __init__(self, model: Any, profile: Profile, state: dict[str, Any] | None = None) -> None:
        window, patch, count = model.limits["window"], model.limits["patch"], len(profile.names)
        if len(profile.ahead) != patch:
            raise InputError(
                f"profile: fitted for patches of {len(profile.ahead)}, not {patch}; fit it again"
            )
        self.model, self.profile = model, profile
        self.phase, self.last = 0, float("nan")
        self._shapes = shapes(window, patch, count)
        self.kept = {name: np.full(shape, np.nan) for name, shape in self._shapes.items()}
        if state is not None:
            self._restore(state)

    def push(self, times: Any, values: Any) -> Scores:
        """Score what arrived: `times` (n,) unix seconds, increasing; `values` (n, channels), NaN missing.

        A gap in the times counts as missing points. Raises InputError, and leaves the stream as it was, for
        other shapes or times that go back.
        """
        return advance(self.model, [(self, times, values)])[0]

    def evidence(
        self, values: np.ndarray, times: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all points of a new stream, for `fit`: evidence float32 (n, channels, parts), the forecasts'
        scaled errors (n, channels), and how far ahead each forecast was (n,), 0 the next point."""
        rows = (values - self.profile.centre) / self.profile.scale
        lacking = np.zeros(len(rows), int) if times is None else self._lacking(times)
        evidence, errors, places = [], [], []
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            piece = Piece(self.profile, self.kept, self.phase, block, lacking[start : start + BLOCK])
            parts, expected = piece.finish(self.model.expected(piece.windows))
            self.kept, self.phase = piece.kept, piece.phase
            evidence.append(parts.astype(np.float32))
            errors.append(np.abs(block - expected))
            places.append(piece.place)
        return np.concatenate(evidence), np.concatenate(errors), np.concatenate(places)

    def state(self) -> dict[str, Any]:
        """What `model.stream(profile, state)` goes on from; JSON-able, of a size that never grows."""
        last = None if np.isnan(self.last) else self.last
        return {"schema": SCHEMA, "phase": self.phase, "last": last} | {
            name: base64.b64encode(kept.astype("<f8").tobytes()).decode() for name, kept in self.kept.items()
        }

    def _restore(self, state: Any) -> None:
        try:
            phase, last = int(state["phase"]), state["last"]
            if state["schema"] != SCHEMA or not 0 <= phase < self._shapes["forecast"][0]:
                raise ValueError("another schema or phase")
            for name, shape in self._shapes.items():
                data = base64.b64decode(state[name], validate=True)
                self.kept[name] = np.frombuffer(data, "<f8").reshape(shape).astype(float)
            self.phase, self.last = phase, float("nan") if last is None else float(last)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise InputError(
                f"state of a stream: not of this model and profile ({error}); start afresh"
            ) from None

    def _checked(self, times: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
        try:
            when, what = np.asarray(times, float), np.asarray(values, float)
        except (ValueError, TypeError):
            raise InputError("times and values must be numbers; send NaN where one is missing") from None
        if when.ndim != 1 or what.shape != (len(when), len(self.profile.names)):
            raise InputError(
                f"values have shape {what.shape} for {len(when.ravel())} times and "
                f"{len(self.profile.names)} channels; send (points, channels)"
            )
        checked_times(when, len(when), self.last)
        return when, np.where(np.isfinite(what), what, np.nan)

    def _lacking(self, when: np.ndarray) -> np.ndarray:
        """How many points the times (n,) lack right before each of them, int (n,)."""
        steps = np.diff(when, prepend=self.last) / self.profile.step
        late = steps >= LATE
        if not late.any():
            return np.zeros(len(when), int)
        lacking = np.where(late, np.rint(np.where(late, steps, 0)) - 1, 0)
        # More than all that is remembered changes nothing; what is left out is a whole number of hops.
        patch = self._shapes["forecast"][0]
        most = self._shapes["recent"][0] + 1 + patch
        return np.where(lacking > most, most + (lacking - most) % patch, lacking).astype(int)


def checked_times(times: Any, count: int, last: float = float("nan")) -> np.ndarray:
    """`times` as float64 (count,). Raises InputError unless finite, increasing and past `last`."""
    try:
        when = np.asarray(times, float)
    except (ValueError, TypeError):
        raise InputError("times must be numbers; give unix seconds") from None
    if when.shape != (count,):
        raise InputError(f"times have shape {when.shape} for {count} points; give one for each")
    if not np.isfinite(when).all() or (np.diff(when) <= 0).any() or (count and when[0] <= last):
        raise InputError("times must be finite and increase; sort them and drop what came twice")
    return when


def usual_step(times: np.ndarray) -> float:
    """Seconds between two points (n,), at least two: the median step. Of a series so uneven that windows of
    such steps would mostly lack points, the first larger quantile with which they do not."""
    steps = np.diff(np.asarray(times, float))
    found = 1e-3
    for share in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.95, 0.98, 1.0):
        found = max(float(np.quantile(steps, share)), 1e-3)
        late = steps[steps >= LATE * found] / found
        if np.minimum(np.rint(late) - 1, LONG_GAP).sum() <= UNEVEN * len(steps):
            break
    return found


def advance(model: Any, pushes: Sequence[tuple[Stream, Any, Any]]) -> list[Scores]:
    """`push` of many streams of one model, with their windows in common engine calls.

    Raises InputError as `push` does, before any stream has moved, also where one stands there twice.
    """
    if len({id(push[0]) for push in pushes}) < len(pushes):
        raise InputError("a stream stands twice among those to advance; join its points")
    streams = [push[0] for push in pushes]
    checked = [stream._checked(times, values) for stream, times, values in pushes]
    scaled = [
        ((what - stream.profile.centre) / stream.profile.scale, stream._lacking(when))
        for stream, (when, what) in zip(streams, checked, strict=True)
    ]
    found: list[list[Scores]] = [[] for _ in pushes]
    for start in range(0, max((len(rows) for rows, _ in scaled), default=0), BLOCK):
        _advance(model, streams, scaled, start, found)
    for stream, (when, _) in zip(streams, checked, strict=True):
        stream.last = float(when[-1]) if len(when) else stream.last
    return [_joined(blocks, what) for blocks, (_, what) in zip(found, checked, strict=True)]


def _advance(
    model: Any, streams: list[Stream], scaled: list[tuple[np.ndarray, np.ndarray]], start: int,
    found: list[list[Scores]],
) -> None:  # fmt: skip
    """One block of each stream that still has points, with one run of the model."""
    at = [number for number, (rows, _) in enumerate(scaled) if start < len(rows)]
    pieces = []
    for number in at:
        stream, (rows, lacking) = streams[number], (one[start : start + BLOCK] for one in scaled[number])
        pieces.append(Piece(stream.profile, stream.kept, stream.phase, rows, lacking))
    windows = [piece.windows for piece in pieces]
    expected = model.expected(np.concatenate(windows) if len(windows) > 1 else windows[0])
    for number, piece in zip(at, pieces, strict=True):
        stream, size = streams[number], len(piece.windows)
        found[number].append(_scores(stream.profile, *piece.finish(expected[:size])))
        expected = expected[size:]
        stream.kept, stream.phase = piece.kept, piece.phase


def _scores(profile: Profile, evidence: np.ndarray, ahead: np.ndarray) -> Scores:
    score, channels, parts = combine(weigh(evidence, profile.usual))
    expected = ahead * profile.scale + profile.centre
    return Scores(score, profile.severity(score), channels, parts, expected, expected)


def _joined(blocks: list[Scores], seen: np.ndarray) -> Scores:
    """One of all blocks."""
    if not blocks:
        none, count = np.empty(0), seen.shape[1]
        return Scores(none, none, np.empty((0, count)), np.empty((0, len(PARTS))), np.empty((0, count)), seen)
    if len(blocks) == 1:
        return replace(blocks[0], seen=seen)
    fields = [(one.score, one.severity, one.channels, one.parts, one.expected) for one in blocks]
    score, severity, channels, parts, expected = map(np.concatenate, zip(*fields, strict=True))
    return Scores(score, severity, channels, parts, expected, seen)
