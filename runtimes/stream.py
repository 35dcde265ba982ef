"""Scores as points arrive: causal, in bounded memory, and the same for a whole array as for a stream.

Every `patch` points the model is asked about the window that ends there. Its forecast scores the next `patch`
points as they come; how well it could rebuild the window, and the window's level and spread, are slower
parts of the score, held until the next hop.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.profile import PARTS, Profile
from runtimes.windows import SEEN, bridge, cut, normalise

SCHEMA = 1
BLOCK = 4096  # points of a stream that are worked on at once
LATE = 1.5  # steps between two points from which on some are missing between them
FAR = 1e6  # no evidence counts for more
_KEPT = ("buffer", "forecast", "slow", "recent")


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
        self._shapes = {
            "buffer": (window, count), "forecast": (patch, count), "slow": (len(PARTS) - 1, count),
            "recent": (patch - 1, count),
        }  # fmt: skip
        self.kept = {name: np.full(shape, np.nan) for name, shape in self._shapes.items()}
        if state is not None:
            self._restore(state)

    def push(self, times: Any, values: Any) -> Scores:
        """Score what arrived: `times` (n,) unix seconds, increasing; `values` (n, channels), NaN missing.

        A gap in the times counts as missing points. Raises InputError, and leaves the stream as it was, for
        other shapes or times that go back.
        """
        return advance(self.model, [(self, times, values)])[0]

    def evidence(self, values: np.ndarray) -> np.ndarray:
        """What the score of each point is made of, (n, channels, parts), before any weight; for `fit`."""
        rows = (values - self.profile.centre) / self.profile.scale
        found = []
        for start in range(0, len(rows), BLOCK):
            piece = _Piece(self, rows[start : start + BLOCK])
            found.append(piece.finish(self.model.expected(piece.windows))[0])
        return np.concatenate(found)

    def state(self) -> dict[str, Any]:
        """What `model.stream(profile, state)` goes on from; JSON-able, of a size that never grows."""
        last = None if np.isnan(self.last) else self.last
        return {"schema": SCHEMA, "phase": self.phase, "last": last} | {
            name: base64.b64encode(self.kept[name].astype("<f8").tobytes()).decode() for name in _KEPT
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
        steps = np.diff(when, prepend=self.last if not np.isnan(self.last) else when[:1] - 1)
        if not np.isfinite(when).all() or (steps <= 0).any():
            raise InputError("times must be finite and increase; sort them and drop what came twice")
        return when, np.where(np.isfinite(what), what, np.nan)


def advance(model: Any, pushes: Sequence[tuple[Stream, Any, Any]]) -> list[Scores]:
    """`push` of many streams of one model, with their windows in common engine calls."""
    checked = [stream._checked(times, values) for stream, times, values in pushes]
    spread = [_with_gaps(push[0], *points) for push, points in zip(pushes, checked, strict=True)]
    found: list[list[tuple[np.ndarray, ...]]] = [[] for _ in pushes]
    for start in range(0, max((len(rows) for rows, _ in spread), default=0), BLOCK):
        pieces = [
            (number, _Piece(pushes[number][0], rows[start : start + BLOCK]))
            for number, (rows, _) in enumerate(spread)
            if start < len(rows)
        ]
        expected = model.expected(np.concatenate([piece.windows for _, piece in pieces]))
        for number, piece in pieces:
            found[number].append(piece.finish(expected[: len(piece.windows)]))
            expected = expected[len(piece.windows) :]
    scored = []
    for (stream, _, _), (when, what), blocks, (_, kept) in zip(pushes, checked, found, spread, strict=True):
        stream.last = float(when[-1]) if len(when) else stream.last
        scored.append(_scores(stream.profile, blocks, kept, what))
    return scored


def _with_gaps(stream: Stream, when: np.ndarray, what: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scaled values with a row of NaN for each point that the times lack, and where the real ones stand."""
    profile = stream.profile
    scaled = (what - profile.centre) / profile.scale
    steps = np.diff(when, prepend=stream.last) / profile.step
    lacking = np.where(steps >= LATE, np.rint(np.nan_to_num(steps, posinf=0)) - 1, 0)
    # More than a window of them changes nothing, but a whole number of hops may be left out.
    window, patch = stream._shapes["buffer"][0], len(profile.ahead)
    most = window + patch
    lacking = np.where(lacking > most, most + (lacking - most) % patch, lacking).astype(int)
    places = np.arange(len(when)) + np.cumsum(lacking)
    if not lacking.any():
        return scaled, places
    rows = np.full((int(places[-1]) + 1, scaled.shape[1]), np.nan)
    rows[places] = scaled
    return rows, places


class _Piece:
    """Some points of a stream: their windows first, their evidence once the model has answered."""

    def __init__(self, stream: Stream, rows: np.ndarray) -> None:
        self.stream, self.rows = stream, rows
        window, patch = stream._shapes["buffer"][0], len(stream.profile.ahead)
        self.history = np.concatenate([stream.kept["buffer"], rows])
        self.ends = np.arange(window + patch - stream.phase, len(self.history) + 1, patch)
        if not len(self.ends):
            self.windows = np.empty((0, window), np.float32)
            return
        raw = cut(self.history, window, self.ends)
        self.raw = bridge(raw.reshape(-1, window))
        self.seen = ~np.isnan(raw.reshape(-1, window))
        self.windows, self.mean, self.spread = normalise(self.raw)

    def finish(self, expected: np.ndarray) -> tuple[np.ndarray, ...]:
        """(evidence (n, channels, parts), expected (n, channels) scaled); the stream moves on."""
        kept, (patch, count) = self.stream.kept, self.stream.profile.ahead.shape
        forecasts, slow = kept["forecast"][None], kept["slow"][None]
        if len(self.ends):
            again, on = self._judged(expected)
            forecasts = np.concatenate([forecasts, on.reshape(-1, count, patch).transpose(0, 2, 1)])
            slow = np.concatenate([slow, again.reshape(-1, count, len(PARTS) - 1).transpose(0, 2, 1)])
        hop, place = np.divmod(self.stream.phase + np.arange(len(self.rows)), patch)
        ahead = forecasts[hop, place]
        errors = np.minimum(np.abs(self.rows - ahead) / self.stream.profile.ahead[place], FAR)
        evidence = np.concatenate(
            [_lately(kept["recent"], errors)[..., None], slow[hop].transpose(0, 2, 1)], 2
        )
        size = len(kept["buffer"])
        self.stream.phase = int((self.stream.phase + len(self.rows)) % patch)
        self.stream.kept = {
            "buffer": self.history[-size:], "forecast": forecasts[-1], "slow": slow[-1],
            "recent": np.concatenate([kept["recent"], errors])[-(patch - 1) :],
        }  # fmt: skip
        return evidence, ahead

    def _judged(self, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slow parts (windows, parts - 1) and forecasts (windows, patch), scaled; NaN where too gappy."""
        window = self.raw.shape[1]
        back = expected.astype(float) * self.spread[:, None] + self.mean[:, None]
        known = self.seen.mean(axis=1) >= SEEN
        off = np.square(np.where(self.seen, self.raw - back[:, :window], 0))
        shape = np.sqrt(off.sum(axis=1) / np.maximum(self.seen.sum(axis=1), 1))
        spread = np.log(np.maximum(self.raw[:, -window // 4 :].std(axis=1), 1e-3))
        slow = np.stack([shape, self.mean, spread], axis=1)
        return np.where(known[:, None], slow, np.nan), np.where(known[:, None], back[:, window:], np.nan)


def _lately(before: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Mean of the errors (n, channels) over the last `len(before) + 1` points that are there."""
    size = len(before) + 1
    rows = np.concatenate([before, errors])
    seen = ~np.isnan(rows)
    sums = np.cumsum(np.pad(np.where(seen, rows, 0), ((1, 0), (0, 0))), axis=0)
    counts = np.cumsum(np.pad(seen, ((1, 0), (0, 0))), axis=0)
    mean = (sums[size:] - sums[:-size]) / np.maximum(counts[size:] - counts[:-size], 1)
    return np.where(np.isnan(errors), np.nan, mean)


def _scores(
    profile: Profile, blocks: list[tuple[np.ndarray, ...]], kept: np.ndarray, seen: np.ndarray
) -> Scores:
    count = len(profile.names)
    blocks = blocks or [(np.empty((0, count, len(PARTS))), np.empty((0, count)))]
    evidence, ahead = (np.concatenate(parts)[kept] for parts in zip(*blocks, strict=True))
    weights = weigh(evidence, profile.usual)
    score, channels, parts = combine(weights)
    expected = ahead * profile.scale + profile.centre
    return Scores(score, profile.severity(score), channels, parts, expected, seen)


def weigh(evidence: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """How far each part (n, channels, parts) is from what is usual, in half-widths of that."""
    return np.minimum(np.abs(evidence - usual[..., 0]) / usual[..., 1], FAR)


def combine(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score (n,) of weights (n, channels, parts), and the shares of the channels and of the parts in it.

    Of a channel the mean of the parts counts; over channels, the mean of the largest fifth.
    """
    known = np.where(np.isnan(weights[..., :1]), np.nan, np.nan_to_num(weights))
    each = known.mean(axis=2)
    top = max(1, round(each.shape[1] / 5))
    sorted_ = np.sort(np.nan_to_num(each, nan=-1), axis=1)[:, -top:]
    score = np.where(np.isnan(each).all(axis=1), np.nan, np.maximum(sorted_, 0).mean(axis=1))
    full = np.nan_to_num(known)
    total = np.maximum(full.sum(axis=(1, 2)), 1e-12)[:, None]
    return score, full.sum(axis=2) / total, full.sum(axis=1) / total
