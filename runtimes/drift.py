"""Has a series changed for good? Scores and inputs of late beside those from when its profile was fitted.

Points that follow each other are alike, so single points prove nothing: they are taken together in blocks,
and blocks are compared. A block should be a whole number of periods long where the series has one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.profile import Profile

SCHEMA = 1
LEAST_BLOCK = 64


@dataclass(frozen=True)
class DriftRules:
    """`block`: points in a block. The first `reference` blocks are what is usual, the last `recent` ones are
    compared with it. Drift is a middle that moved by `shift` of the usual block-to-block spread, and a
    distribution that would come so by chance with less than `risk` (Kolmogorov-Smirnov)."""

    block: int = LEAST_BLOCK
    reference: int = 40
    recent: int = 8
    shift: float = 3.0
    risk: float = 1e-4

    def __post_init__(self) -> None:
        if not (2 <= self.block <= 100_000 and 8 <= self.reference <= 1000 and 4 <= self.recent <= 100):
            raise InputError("drift: block must be 2 to 100,000, reference 8 to 1,000, recent 4 to 100")
        if not (self.shift > 0 and 0 < self.risk < 1):
            raise InputError("drift: shift must be above 0, risk within 0 and 1")


@dataclass(frozen=True)
class DriftEvent:
    """`what` moved: "scores", or the "mean" or "spread" of `channel`. `time` (unix seconds) is when it was
    seen; it has been so for about `points` points. `shift` is in usual spreads, with its direction."""

    time: float
    what: str
    channel: str
    shift: float
    chance: float
    points: int


def rules_for(period: int | None) -> DriftRules:
    """Rules for a series that repeats after `period` points: blocks of whole periods, 64 points or more."""
    period = period or 1
    return DriftRules(block=min(period * math.ceil(LEAST_BLOCK / period), 100_000))


class Drift:
    """One series: `push` what was seen and its scores, `state` for a restart, `reset` after a refit."""

    def __init__(
        self, profile: Profile, rules: DriftRules | None = None, state: dict[str, Any] | None = None
    ) -> None:
        self.profile, self.rules = profile, rules or rules_for(profile.period)
        names = profile.names
        self.features = [("scores", "")] + [(what, name) for what in ("mean", "spread") for name in names]
        self.reset()
        if state is not None:
            self._restore(state)

    def reset(self) -> None:
        """Forget what was usual: the next blocks tell it anew."""
        self._open = np.empty((0, 1 + len(self.profile.names)))
        self._reference = np.empty((0, len(self.features)))
        self._recent = np.empty((0, len(self.features)))
        self.drifted = False

    def push(self, times: Any, scores: Any, values: Any) -> DriftEvent | None:
        """The event at which a drift was first seen, else None. Of a series that has drifted nothing more is
        said until `reset`, or until it came back and left again.

        `times` (n,) unix seconds; `scores` (n,) and `values` (n, channels) with NaN where there is none.
        Raises InputError for other shapes.
        """
        rows = self._rows(times, scores, values)
        found: DriftEvent | None = None
        points = np.concatenate([self._open, rows])
        whole = len(points) // self.rules.block * self.rules.block
        late = len(self._open)
        for start in range(0, whole, self.rules.block):
            block = points[start : start + self.rules.block]
            time = float(np.asarray(times, float)[start + self.rules.block - 1 - late])
            found = self._take(block, time) or found
        self._open = points[whole:]
        return found

    def _rows(self, times: Any, scores: Any, values: Any) -> np.ndarray:
        profile = self.profile
        try:
            when, what, seen = (np.asarray(one, float) for one in (times, scores, values))
        except (ValueError, TypeError):
            raise InputError("drift: times, scores and values must be numbers") from None
        if when.ndim != 1 or what.shape != when.shape or seen.shape != (len(when), len(profile.names)):
            raise InputError(
                f"drift: {when.shape} times, {what.shape} scores and {seen.shape} values for "
                f"{len(profile.names)} channels; send (n,), (n,) and (n, channels)"
            )
        scaled = np.clip((seen - profile.centre) / profile.scale, -1e6, 1e6)
        scaled[~np.isfinite(scaled)] = np.nan
        known = np.where(np.isfinite(what), np.log1p(np.maximum(what, 0)), np.nan)
        return np.concatenate([known[:, None], scaled], axis=1)

    def _take(self, block: np.ndarray, time: float) -> DriftEvent | None:
        features = _features(block)
        if np.isnan(features[0]) or np.isnan(features).all():
            return None  # warming up, or hardly anything came
        if len(self._reference) < self.rules.reference:
            self._reference = np.concatenate([self._reference, features[None]])
            return None
        self._recent = np.concatenate([self._recent, features[None]])[-self.rules.recent :]
        if len(self._recent) < self.rules.recent:
            return None
        shifts, chances = compare(self._reference, self._recent)
        moved = (np.abs(shifts) > self.rules.shift) & (chances < self.rules.risk / len(shifts))
        before, self.drifted = self.drifted, bool(moved.any())
        if before or not self.drifted:
            return None
        first = int(np.argmax(np.where(moved, np.abs(shifts), -1)))
        what, channel = self.features[first]
        points = self.rules.recent * self.rules.block
        return DriftEvent(time, what, channel, float(shifts[first]), float(chances[first]), points)

    def state(self) -> dict[str, Any]:
        """What `Drift(profile, rules, state)` goes on from; JSON-able, of a size that never grows."""
        kept = {"open": self._open, "reference": self._reference, "recent": self._recent}
        plain = {name: _listed(rows) for name, rows in kept.items()}
        return {"schema": SCHEMA, "block": self.rules.block, "drifted": self.drifted, **plain}

    def _restore(self, state: Any) -> None:
        most = {
            "open": (self.rules.block, self._open),
            "reference": (self.rules.reference, self._reference),
            "recent": (self.rules.recent, self._recent),
        }
        try:
            if state["schema"] != SCHEMA or state["block"] != self.rules.block:
                raise ValueError("another schema or block")
            for name, (limit, empty) in most.items():
                rows = np.array(state[name], float).reshape(-1, empty.shape[1])
                if len(rows) > limit or np.isinf(rows).any():
                    raise ValueError(f"{name} does not fit")
                setattr(self, f"_{name}", rows)
            self.drifted = bool(state["drifted"])
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise InputError(
                f"state of drift: not of this profile and rules ({error}); start afresh"
            ) from None


def _features(block: np.ndarray) -> np.ndarray:
    """(1 + 2 channels,): mean score, means and spreads of the channels; NaN where half of it is missing."""
    there = ~np.isnan(block)
    count = there.sum(axis=0)
    filled = np.where(there, block, 0)
    mean = filled.sum(axis=0) / np.maximum(count, 1)
    spread = np.sqrt(np.where(there, (block - mean) ** 2, 0).sum(axis=0) / np.maximum(count, 1))
    enough = count * 2 > len(block)
    mean, spread = np.where(enough, mean, np.nan), np.where(enough, spread, np.nan)
    return np.concatenate([mean, np.log(np.maximum(spread[1:], 0.01))])


def compare(reference: np.ndarray, recent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of blocks (r, features) and (k, features): how far the middle moved, in usual spreads, and the chance
    of such a difference (two-sample Kolmogorov-Smirnov, asymptotic); 0 and 1 for what is mostly missing."""
    shifts, chances = np.zeros(reference.shape[1]), np.ones(reference.shape[1])
    for feature in range(reference.shape[1]):
        first, last = reference[:, feature], recent[:, feature]
        first, last = first[~np.isnan(first)], last[~np.isnan(last)]
        if len(first) < 8 or len(last) < 4:
            continue
        middle = np.median(first)
        spread = max(1.4826 * float(np.median(np.abs(first - middle))), float(first.std()) / 2, 0.05)
        shifts[feature] = (np.median(last) - middle) / spread
        chances[feature] = _chance(first, last)
    return shifts, chances


def _chance(first: np.ndarray, last: np.ndarray) -> float:
    """P of a distance this large or larger between two samples of one distribution (Stephens 1970)."""
    places = np.sort(np.concatenate([first, last]))
    shares = [np.searchsorted(np.sort(one), places, side="right") / len(one) for one in (first, last)]
    root = math.sqrt(len(first) * len(last) / (len(first) + len(last)))
    far = (root + 0.12 + 0.11 / root) * float(np.abs(shares[0] - shares[1]).max())
    if far < 0.3:
        return 1.0
    terms = [(-1) ** (k - 1) * math.exp(-2 * (k * far) ** 2) for k in range(1, 101)]
    return min(max(2 * sum(terms), 0.0), 1.0)


def _listed(rows: np.ndarray) -> list[list[float | None]]:
    """Rounded, with None for NaN, as JSON has none."""
    return [[None if math.isnan(cell) else float(cell) for cell in row] for row in rows]
