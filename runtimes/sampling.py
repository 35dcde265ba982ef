"""The next token from logits: the best one, or a draw by temperature, top-k, top-p and min-p.

Everything is spelled out so that another language can draw the very same tokens: filters leave a set of
tokens, their probabilities are summed in the order of token ids in float64, and the draw is one number of
`Draws`. Ties are the lower id's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from runtimes.errors import EngineError, InputError

CANDIDATES = 1_024  # of which top-p is tried first: they nearly always hold it, and sorting all costs more
_BITS = 0xFFFFFFFF
# Option → least, most.
BOUNDS = {
    "temperature": (0.0, 100.0),
    "top_k": (0, 1 << 24),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
}


@dataclass(frozen=True)
class Sampling:
    """How the next token is taken. The defaults take the most probable one, always.

    In this order: `repetition_penalty` divides (below 0: multiplies) the logits of tokens that stand in
    prompt or answer (Keskar et al. 2019); `temperature` divides all logits, 0 takes the best and ends here;
    `top_k` keeps the best k (0: all); `top_p` the fewest of the best whose probabilities reach it (Holtzman
    et al. 2020; 1: all); `min_p` those with at least that part of the best one's probability (Nguyen et al.
    2024; 0: all).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def sampling_of(defaults: Mapping[str, Any], **chosen: Any) -> Sampling:
    """A Sampling from a bundle's defaults and what the caller chose (None: not chosen).

    Raises InputError for a value out of its bounds.
    """
    values = {**defaults, **{key: value for key, value in chosen.items() if value is not None}}
    for key, value in values.items():
        problem = wrong(key, value)
        if problem:
            raise InputError(problem)
    return Sampling(**values)


def wrong(key: str, value: object) -> str | None:
    """What is wrong with an option, in words; None where nothing is."""
    if key not in BOUNDS:
        return f"{key} is no option of sampling; it has {', '.join(field.name for field in fields(Sampling))}"
    least, most = BOUNDS[key]
    kinds = (int,) if isinstance(least, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
        return f"{key} must be {'a whole number ' if kinds == (int,) else ''}from {least:g} to {most:g}"
    return None


class Draws:
    """Numbers of [0, 1) from a seed: mulberry32 (Ettinger 2017), 32 bits, easily the same in JavaScript."""

    def __init__(self, seed: int) -> None:
        self._state = (seed ^ (seed >> 32)) & _BITS

    def next(self) -> float:
        self._state = (self._state + 0x6D2B79F5) & _BITS
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 15)) * (mixed | 1)) & _BITS
        mixed ^= (mixed + (((mixed ^ (mixed >> 7)) * (mixed | 61)) & _BITS)) & _BITS
        return (mixed ^ (mixed >> 14)) / 2**32


def penalized(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Logits (vocabulary,) with the penalty on the tokens that were seen (bool, the same shape)."""
    if penalty == 1.0:
        return logits
    return np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)


def choose(logits: np.ndarray, sampling: Sampling, draws: Draws) -> int:
    """A token id from float32 logits (vocabulary,), the penalty already in them.

    Raises EngineError where the largest is no finite number.
    """
    best = int(logits.argmax())  # of NaNs the first one
    if not math.isfinite(logits[best]):
        raise EngineError(
            f"the model's logits are no numbers ({logits[best]}); try another variant or engine"
        )
    if sampling.temperature == 0:
        return best
    ids, probabilities = kept(logits, sampling)
    sums = np.cumsum(probabilities)
    place = int(np.searchsorted(sums, draws.next() * sums[-1], side="right"))
    return int(ids[min(place, len(ids) - 1)])


def kept(logits: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that the filters leave, ids ascending, and their probabilities, which sum to 1 or less."""
    ids = _top_k(logits, sampling.top_k)
    below = logits[ids].astype(np.float64) - float(logits.max())
    with np.errstate(over="ignore"):  # a temperature next to 0: all but the best are at -inf
        probabilities = np.exp(below / sampling.temperature)
    probabilities /= probabilities.sum()
    if sampling.top_p < 1:
        chosen = _top_p(probabilities, sampling.top_p)
        ids, probabilities = ids[chosen], probabilities[chosen]
    if sampling.min_p > 0:
        chosen = np.flatnonzero(probabilities >= sampling.min_p * probabilities.max())
        ids, probabilities = ids[chosen], probabilities[chosen]
    return ids, probabilities


def _top_k(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` largest (0: of all), ascending; of equals the first ones."""
    if not 0 < count < len(values):
        return np.arange(len(values))
    border = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > border)
    equal = np.flatnonzero(values == border)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


def _top_p(probabilities: np.ndarray, mass: float) -> np.ndarray:
    """Places of the fewest of the largest that reach `mass`, ascending; one at least."""
    for count in (CANDIDATES, 0):
        places = _top_k(probabilities, count)
        order = places[np.argsort(-probabilities[places], kind="stable")]
        sums = np.cumsum(probabilities[order])
        if count == 0 or sums[-1] >= mass:
            break
    needed = int(np.searchsorted(sums, mass)) + 1
    return np.sort(order[:needed])


def log_probability(logits: np.ndarray, number: int) -> float:
    """Natural logarithm of a token's probability in the model's own distribution: no filter, no penalty."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return float(shifted[number]) - math.log(float(np.exp(shifted).sum()))
