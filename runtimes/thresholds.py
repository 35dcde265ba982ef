"""Where an anomaly begins: extreme-value theory (POT and SPOT), a quantile, or what labels say is best."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from runtimes.errors import InputError

RISK = 1e-4  # share of normal points that may lie above the threshold
LEVEL = 0.98  # quantile at which the tail begins (Siffer et al. 2017)
LEAST = 20  # scores that a fit needs, and peaks that it takes of few scores
SHAPES = (-0.5, 1.0)  # of a tail: below, estimates are not regular; above, it would have no mean
MOST_SHARE = 0.1  # of a stream's scores in its tail; with more it begins higher up
PEAKS = 1_000  # peaks that a stream keeps for the next fit; older ones go


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto tail over `start`: of `count` scores, `share` lie above it.

    P(score > x) = share * (1 + shape * (x - start) / scale) ** (-1 / shape), exponential at shape 0.
    """

    start: float
    shape: float
    scale: float
    share: float
    count: int

    def beyond(self, scores: np.ndarray) -> np.ndarray:
        """P(score > x) of each x, for x above `start`; below it, at most 1 and at least `share`."""
        over = np.maximum(np.asarray(scores, float) - self.start, 0) / self.scale
        if abs(self.shape) < 1e-8:
            return np.asarray(self.share * np.exp(-over))
        return np.asarray(self.share * np.maximum(1 + self.shape * over, 0) ** (-1 / self.shape))

    def threshold(self, risk: float) -> float:
        """The score that is passed with probability `risk` (Siffer et al. 2017, equation 1)."""
        ratio = risk / self.share
        if ratio >= 1:
            return self.start
        if abs(self.shape) < 1e-8:
            return self.start - self.scale * math.log(ratio)
        return self.start + self.scale / self.shape * (ratio**-self.shape - 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pot(scores: np.ndarray, level: float = LEVEL, shapes: tuple[float, float] = SHAPES) -> Tail:
    """Fit the tail of normal scores (n,), NaN left out, above their quantile `level`; lower for few scores.

    Peaks over threshold: Siffer et al. 2017, "Anomaly detection in streams with extreme value theory". The
    likelihood is Grimshaw's (1993), searched on a grid of one variable. Raises InputError below 20 scores.
    """
    found = np.asarray(scores, float)
    found = found[np.isfinite(found)]
    if len(found) < LEAST:
        raise InputError(
            f"{len(found)} scores are too few for a threshold; give at least {LEAST} normal ones"
        )
    start = float(np.quantile(found, max(0.5, min(level, 1 - LEAST / len(found)))))
    peaks = found[found > start] - start
    if not len(peaks):  # all the largest ones are equal
        peaks = np.array([max(abs(start), 1.0) * 1e-3])
    shape, scale = fit_pareto(peaks, shapes)
    return Tail(start, shape, scale, max(len(peaks), 1) / len(found), len(found))


def fit_pareto(peaks: np.ndarray, within: tuple[float, float] = SHAPES) -> tuple[float, float]:
    """(shape, scale) of the generalised Pareto distribution most likely for `peaks` (k,) > 0.

    Of Grimshaw's one-variable likelihood l(x), x = shape / scale: shape(x) = mean log(1 + x peaks). Shapes
    are kept `within` two.
    """
    mean, top = float(peaks.mean()), float(peaks.max())
    grid = np.concatenate([-np.geomspace(1e-6, 0.999, 60) / top, np.geomspace(1e-6, 1e3, 120) / mean])
    for _ in range(3):
        shapes = np.log1p(np.outer(grid, peaks)).mean(axis=1)
        inside = (shapes >= within[0]) & (shapes <= within[1]) & (np.abs(shapes) > 1e-12)
        grid, shapes = grid[inside], shapes[inside]
        if not len(grid):
            break
        cost = np.log(shapes / grid) + shapes
        best = int(cost.argmin())
        if cost[best] >= math.log(mean):  # the exponential's cost: its shape is 0
            break
        found = float(shapes[best]), float(shapes[best] / grid[best])
        step = abs(grid[best]) * 0.15
        low, high = grid[best] - step, grid[best] + step
        grid = np.linspace(max(low, -0.9999 / top), high, 81)
    else:
        return found
    return 0.0, mean


@dataclass(frozen=True)
class Spot:
    """The tail of a stream: `update` returns the next one. Bounded: the last 1,000 peaks are kept."""

    tail: Tail
    risk: float = RISK
    peaks: tuple[float, ...] = ()
    within: tuple[float, float] = SHAPES

    def update(self, score: float) -> tuple["Spot", bool]:
        """Take one score in; whether it is an anomaly, which leaves the tail alone (SPOT, algorithm 2)."""
        if not math.isfinite(score):
            return self, False
        if score >= self.tail.threshold(self.risk):
            return self, True
        count, over = self.tail.count + 1, score - self.tail.start
        above = self.tail.share * self.tail.count
        if over <= 0:
            return replace(self, tail=replace(self.tail, share=above / count, count=count)), False
        start, peaks, share = self.tail.start, (*self.peaks, over)[-PEAKS:], (above + 1) / count
        if share > MOST_SHARE and len(peaks) > 2 * LEAST:  # no tail any more: begin at their median
            middle = float(np.median(peaks))
            higher = tuple(peak - middle for peak in peaks if peak > middle)
            start, peaks, share = start + middle, higher, share * len(higher) / len(peaks)
        shape, scale = (
            fit_pareto(np.array(peaks), self.within)
            if len(peaks) >= LEAST
            else (self.tail.shape, self.tail.scale)
        )
        tail = Tail(start, shape, scale, share, count)
        return replace(self, tail=tail, peaks=peaks), False

    def state(self) -> dict[str, Any]:
        """JSON-able, of a size that never grows; `spot_from` goes on from it."""
        return asdict(self)


def spot_of(tail: Tail, within: tuple[float, float] = SHAPES, risk: float = RISK) -> Spot:
    """A stream that begins with the `tail` of a fit: as many peaks as it had, as the tail has them."""
    count = min(max(round(tail.share * tail.count), LEAST), PEAKS)
    left = tail.share * (1 - (np.arange(count) + 0.5) / count)
    peaks = tuple(tail.threshold(float(risk_)) - tail.start for risk_ in left)
    return Spot(tail, risk, peaks, within)


def spot_from(state: Any) -> Spot:
    """Where `Spot.state` left it. Raises InputError for anything else."""
    try:
        told = state["tail"]
        start, shape, scale, share = (float(told[key]) for key in ("start", "shape", "scale", "share"))
        tail = Tail(start, shape, scale, share, int(told["count"]))
        low, high = map(float, state["within"])
        peaks = tuple(map(float, state["peaks"]))
        spot = Spot(tail, float(state["risk"]), peaks, (low, high))
        numbers = (tail.start, tail.shape, low, high, *peaks, tail.threshold(spot.risk))
        if not all(map(math.isfinite, numbers)) or len(peaks) > PEAKS or min(peaks, default=1.0) < 0:
            raise ValueError("no finite tail")
        if not (tail.scale > 0 and 0 < tail.share <= 1 and tail.count > 0 and 0 < spot.risk < 1):
            raise ValueError("no tail")
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"state of a threshold: not one that edgewise wrote ({error}); start afresh"
        ) from None
    return spot


def quantile(scores: np.ndarray, share: float = 0.999) -> float:
    """The score that a share of normal scores stays under, NaN left out."""
    found = np.asarray(scores, float)
    found = found[np.isfinite(found)]
    if not len(found) or not 0 < share < 1:
        raise InputError(
            f"a quantile of {share} over {len(found)} scores; give scores and a share within 0..1"
        )
    return float(np.quantile(found, share))


def labelled(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the best F1 over points: `labels` (n,) are 1 where anomalous.

    Raises InputError where no point is anomalous, or none is normal.
    """
    known = np.isfinite(scores)
    found, truth = np.asarray(scores, float)[known], np.asarray(labels)[known] > 0
    if truth.all() or not truth.any():
        raise InputError("labels of one kind give no threshold; take POT or a quantile")
    order = np.argsort(-found, kind="stable")
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(found) + 1) + truth.sum())
    ranked = found[order]
    f1[:-1][ranked[:-1] == ranked[1:]] = 0  # equal scores stand or fall together
    best = int(f1.argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best] - 1
    return float((ranked[best] + below) / 2)
