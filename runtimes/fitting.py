"""A profile from normal points: scales, the model's usual errors, and a threshold."""

from dataclasses import replace
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.evidence import MOST_OF, combine, weigh
from runtimes.profile import PARTS, Profile, scales
from runtimes.stream import Stream
from runtimes.thresholds import RISK, Tail, pot, quantile

MIN_WINDOWS = 3  # windows of normal points that a fit needs
POINTS = 1_000_000  # values of all channels that a fit looks at, the newest ones
RARE = 0.995  # quantile of normal points' evidence that weighs 1
LEAST_AHEAD = 5e-3  # of a forecast's usual error, in units of the scale: what 8 bits tell apart
LEAST = (0.1, 0.15, 0.2, 0.1, 0.1, 0.05, 0.1)  # of each part's width
# Shape of a score's tail. Scores are sums of logarithms, so a heavier one is a fit of chance; and that a
# score is impossible, as a bounded tail has it, is more than some normal points can teach.
SHAPES = (0.0, 0.25)
BOTH = ("value", "level", "spread")  # parts that are strange when low, too


def fit(
    model: Any, points: np.ndarray, names: list[str], step: float, period: int | None,
    threshold: float | str, times: np.ndarray | None = None,
) -> Profile:  # fmt: skip
    """The profile of normal `points` (n, channels), NaN where missing; `Detector.fit` says and checks more.

    The tail, and with it the threshold, is of scores that each half of the points got by what is usual in
    the other half: a series that wanders gets a higher threshold than one that stays.
    """
    count = len(names)
    most = max(POINTS // count, MIN_WINDOWS * model.limits["window"])
    points, times = points[-most:], None if times is None else times[-most:]
    empty = np.isnan(points).all(axis=0)
    if empty.any():
        raise InputError(
            f"channel {names[int(empty.argmax())]!r} has no value at all in the last {len(points)} points; "
            "leave it out"
        )
    centre, scale, constant = scales(points)
    plain = np.zeros((count, len(PARTS), 3))
    plain[..., 2] = 1
    profile = Profile(
        tuple(names), centre, scale, constant, np.ones((model.limits["patch"], count)), plain, step, period,
        1.0, "", Tail(1.0, 0.0, 1.0, 1.0, 0), len(points),
    )  # fmt: skip
    _, errors, places = Stream(model, profile).evidence(points, times)
    profile = replace(profile, ahead=_usual_ahead(errors, places, model.limits["patch"]))
    evidence, _, _ = Stream(model, profile).evidence(points, times)
    scores = _crossed(evidence)
    tail = pot(scores, shapes=SHAPES)
    level, chosen = _threshold(threshold, scores, tail)
    return replace(profile, usual=usual_of(evidence), tail=tail, threshold=level, chosen=chosen)


def _usual_ahead(errors: np.ndarray, places: np.ndarray, patch: int) -> np.ndarray:
    """Root of the mean square error of the forecast (patch, channels) by its distance, 1 where none is known.
    `errors` (n, channels), at distances `places` (n,).

    The largest 1 in 100 are left out: normal points hold some strange ones, too.
    """
    found = np.ones((patch, errors.shape[1]))
    for place in range(patch):
        for channel, column in enumerate(errors[places == place].T):
            seen = column[~np.isnan(column)]
            if len(seen):
                found[place, channel] = np.sqrt(np.square(seen[seen <= np.quantile(seen, 0.99)]).mean())
    return np.maximum(found, LEAST_AHEAD)


def usual_of(evidence: np.ndarray) -> np.ndarray:
    """Middle, usual distance and rare width (channels, parts, 3) of evidence (n, channels, parts).

    The width is no smaller than what each half of the points shows by the other's middle. So a channel that
    wanders weighs less, and the threshold, which is one for all, need not be high for its sake.
    """
    found = _usual(evidence)
    found[..., 2] = np.maximum(found[..., 2], _wandering(evidence))
    return found


def _wandering(evidence: np.ndarray) -> np.ndarray:
    """Width (channels, parts) that holds for each half of the points by what is usual in the other."""
    widths = []
    for here, there in _halves(evidence):
        usual = _usual(there)
        far = np.abs(here - usual[..., 0]) - usual[..., 1]
        known = ~np.isnan(far).all(axis=0)
        width = np.zeros(known.shape)
        width[known] = np.nanquantile(far[:, known], RARE, axis=0)
        widths.append(width)
    return np.asarray(np.maximum(*widths))


def _halves(evidence: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    middle = len(evidence) // 2
    early, late = evidence[:middle], evidence[middle:]
    return (early, late), (late, early)


def _usual(evidence: np.ndarray) -> np.ndarray:
    """As `usual_of`, of these points alone. Errors count from 0; value, level and spread both ways from their
    median."""
    count, parts = evidence.shape[1:]
    found = np.zeros((count, parts, 3))
    for channel in range(count):
        for part in range(parts):
            seen = evidence[:, channel, part]
            seen = seen[~np.isnan(seen)].astype(float)
            if not len(seen):
                seen = np.ones(1)
            middle = float(np.median(seen)) if PARTS[part] in BOTH else 0.0
            low, high = np.quantile(np.abs(seen - middle), [0.5, RARE])
            found[channel, part] = middle, low, max(high - low, LEAST[part])
    return found


def _crossed(evidence: np.ndarray) -> np.ndarray:
    """Scores of the points of each half, by what is usual in the other.

    As if the long course stood at its most, as it does after an anomaly: what it remembers is then under any
    threshold that is found in them.
    """
    scores, wandering = [], _wandering(evidence)
    for here, there in _halves(evidence):
        usual = _usual(there)
        usual[..., 2] = np.maximum(usual[..., 2], wandering)
        weights = weigh(here, usual)
        course = weights[..., PARTS.index("course")]
        course[~np.isnan(course)] = MOST_OF[PARTS.index("course")]
        scores.append(combine(weights)[0])
    return np.concatenate(scores)


def _threshold(asked: float | str, scores: np.ndarray, tail: Tail) -> tuple[float, str]:
    if asked == "pot":
        return tail.threshold(RISK), f"pot {RISK:g}"
    if asked == "quantile":
        return quantile(scores), "quantile 0.999"
    if isinstance(asked, int | float) and np.isfinite(asked):
        return float(asked), "given"
    raise InputError(f'threshold {asked!r} must be "pot", "quantile" or a score')
