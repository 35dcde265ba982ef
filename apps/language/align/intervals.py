"""How sure a comparison is: bootstrap over seeds and prompts, paired permutation test, Holm's correction.

Figures come as arrays (seeds, prompts): every seed answered the same held-out prompts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtimes.errors import InputError

Array = npt.NDArray[np.floating]
Statistic = Callable[..., float]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    def excludes(self, zero: float) -> bool:
        """Whether `zero` lies outside the interval: only then is anything said about which is better."""
        return self.low > zero or self.high < zero


def mean(*arrays: Array) -> float:
    return float(arrays[0].mean())


def bootstrap(*arrays: Array, statistic: Statistic = mean, resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile interval of `statistic` over arrays (seeds, prompts), seeds and prompts both drawn again.

    Seeds and prompts are crossed, so both are drawn with replacement and every drawn seed meets every drawn
    prompt (Owen, The pigeonhole bootstrap, 2007). With few seeds it says little about seeds not tried.
    InputError for arrays that are empty, of unlike shapes or not finite.
    """
    _check(arrays)
    seeds, prompts = arrays[0].shape
    rng = np.random.default_rng(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        rows = np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, prompts, prompts))
        values[i] = statistic(*(array[rows] for array in arrays))
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(statistic(*arrays), float(low), float(high))


def permutation_p(ours: Array, theirs: Array, flips: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of the paired permutation test that both answer equally well, over (seeds, prompts).

    Under that hypothesis the two names may be swapped at any prompt: the sign of the prompt's mean
    difference over the seeds is flipped at random (Good, Permutation Tests, 2000). It speaks of prompts,
    for these seeds. The observed arrangement is counted as one, so p is never 0.
    """
    _check((ours, theirs))
    differences = (ours - theirs).mean(axis=0)
    observed = abs(differences.mean())
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (flips, len(differences)), dtype=np.int8) * 2 - 1
    means = np.abs(signs @ differences) / len(differences)
    return float((1 + np.sum(means >= observed - 1e-12)) / (1 + flips))


def holm(ps: dict[str, float]) -> dict[str, float]:
    """Each p corrected for the number of tests, by Holm's step-down method (Holm, 1979)."""
    corrected, highest = {}, 0.0
    for rank, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in ps}


def _check(arrays: tuple[Array, ...]) -> None:
    first = arrays[0].shape
    if len(first) != 2 or 0 in first or any(array.shape != first for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise InputError(f"comparison: figures must be (seeds, prompts) and of one shape, not {shapes}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError("comparison: a figure is not finite; look at the runs' results and make them again")
