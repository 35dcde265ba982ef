"""Percentiles, bootstrap intervals and outliers of latency samples, and an interval for an accuracy."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from runtimes.errors import InputError

Samples = npt.NDArray[np.floating] | npt.NDArray[np.integer]
RESAMPLES = 1000


def summarise(samples_ms: Samples, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, object]:
    """The `latency_ms` block of a row from samples (n,) in ms: p50, p90, p99, mean, ci95.

    ci95 is the bootstrap interval of the median. Percentiles are interpolated linearly between ranks.
    """
    _check(samples_ms)
    p50, p90, p99 = (float(value) for value in np.percentile(samples_ms, [50, 90, 99]))
    low, high = median_interval(samples_ms, seed, resamples)
    return {"p50": p50, "p90": p90, "p99": p99, "mean": float(np.mean(samples_ms)), "ci95": [low, high]}


def median_interval(samples: Samples, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the median of samples (n,), in their own unit.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    _check(samples)
    return _bootstrap(len(samples), lambda rows: float(np.median(samples[rows])), seed, resamples)


def ratio_of_medians(
    reference: Samples, samples: Samples, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """median(reference) / median(samples) with its 95% interval: how many times as fast.

    Both are (n,), taken in the same rounds: whole rounds are drawn again, so that what slowed one round down
    (its text, a busy machine) slows down both sides. Raises InputError where the lengths differ.
    """
    _check(reference)
    _check(samples)
    if len(reference) != len(samples):
        raise InputError(
            f"statistics: {len(reference)} rounds against {len(samples)}: "
            "a ratio needs one interleaved run; measure both together"
        )

    def ratio(rows: npt.NDArray[np.integer]) -> float:
        return float(np.median(reference[rows]) / np.median(samples[rows]))

    low, high = _bootstrap(len(samples), ratio, seed, resamples)
    return ratio(np.arange(len(samples))), low, high


def median(samples: Samples) -> float:
    """The median of samples (n,). Raises InputError where there is none."""
    _check(samples)
    return float(np.median(samples))


def outliers(samples: Samples) -> int:
    """How many samples lie more than 3 interquartile ranges above the third quartile (Tukey's far out)."""
    _check(samples)
    p25, p75 = np.percentile(samples, [25, 75])
    return int(np.sum(samples > p75 + 3 * (p75 - p25)))


def accuracy_interval(value: float, n: int) -> tuple[float, float]:
    """95% Wilson score interval of an accuracy in [0, 1] measured on n texts (Wilson, 1927)."""
    z = 1.959964
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    # The bounds belong to the interval where nothing, or all, was right: rounding must not move them.
    return 0.0 if value == 0 else centre - half, 1.0 if value == 1 else centre + half


def _bootstrap(
    n: int, statistic: Callable[[npt.NDArray[np.integer]], float], seed: int, resamples: int
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, n, n)) for _ in range(resamples)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _check(samples: Samples) -> None:
    if len(samples) == 0:
        raise InputError("statistics: no samples; run the bench for longer")
