"""Ordinary series of stated kinds, made: what a detector sees beside its data, to serve other series.

A model that was trained on one clean cycle forecasts a cycle everywhere, in plain noise too.
"""

from collections.abc import Callable

import numpy as np

LENGTH = 2_000  # points of each
Make = Callable[[np.random.Generator, int], np.ndarray]


def ordinary(count: int, seed: int = 0, length: int = LENGTH) -> list[np.ndarray]:
    """`count` series (length, 1) float64 without anomalies, of each kind in turn."""
    random = np.random.default_rng([seed, 77])
    return [_KINDS[number % len(_KINDS)](random, length)[:, None] for number in range(count)]


def _noise(random: np.random.Generator, n: int) -> np.ndarray:
    return random.normal(0, 1, n)


def _heavy(random: np.random.Generator, n: int) -> np.ndarray:
    """Noise with long tails, as of response times."""
    return np.asarray(random.standard_t(4, n))


def _memory(random: np.random.Generator, n: int) -> np.ndarray:
    """Autoregressive of order one: it wanders, and comes back."""
    share, value, noise = random.uniform(0.4, 0.99), 0.0, random.normal(0, 1, n)
    found = np.empty(n)
    for place in range(n):
        value = found[place] = share * value + noise[place]
    return found


def _cycle(random: np.random.Generator, n: int) -> np.ndarray:
    """A wave of 6 to 300 points with up to two overtones, and noise of 2 to 50%."""
    place = 2 * np.pi * np.arange(n) / np.exp(random.uniform(np.log(6), np.log(300)))
    overtones = sum(random.uniform(0, 0.5) * np.sin(k * place + random.uniform(0, 7)) for k in (2, 3))
    return np.asarray(np.sin(place) + overtones + random.normal(0, random.uniform(0.02, 0.5), n))


def _pulses(random: np.random.Generator, n: int) -> np.ndarray:
    """A short peak in each cycle of 20 to 120 points, as of a heart or a press."""
    period = random.uniform(20, 120)
    place = (np.arange(n) / period) % 1.0
    width = random.uniform(0.03, 0.12)
    return np.asarray(np.exp(-0.5 * ((place - 0.5) / width) ** 2) + random.normal(0, 0.05, n))


def _steps(random: np.random.Generator, n: int) -> np.ndarray:
    """On and off, each for 10 to 60 points, with noise."""
    lengths = random.integers(10, 60, n // 10)
    return np.asarray(np.repeat(np.arange(len(lengths)) % 2, lengths)[:n] + random.normal(0, 0.1, n))


def _load(random: np.random.Generator, n: int) -> np.ndarray:
    """Counts whose rate has a cycle, as of requests."""
    rate = random.uniform(2, 30) * (1 + 0.8 * np.sin(2 * np.pi * np.arange(n) / random.uniform(100, 700)))
    return np.asarray(random.poisson(rate), float)


_KINDS: tuple[Make, ...] = (_noise, _heavy, _memory, _cycle, _pulses, _steps, _load, _cycle, _memory)
