"""Synthetic anomalies of stated kinds, put into normal points, with their labels."""

from collections.abc import Callable

import numpy as np

from runtimes.profile import scales

# Kind → what it makes of a stretch (n,) of one channel, at its scale. Each changes what a person would see.
Make = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def _spike(stretch: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    made = stretch.copy()
    made[: max(1, len(stretch) // 20)] += random.choice([-1, 1]) * random.uniform(3, 6) * scale
    return made


def _level(stretch: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    return stretch + random.choice([-1, 1]) * random.uniform(1.5, 3) * scale


def _drift(stretch: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    way = random.choice([-1, 1]) * random.uniform(2, 4) * scale
    return stretch + way * np.linspace(0, 1, len(stretch))


def _stuck(stretch: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    return np.full_like(stretch, stretch[0])


def _noise(stretch: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    return stretch + random.normal(0, random.uniform(0.7, 1.5) * scale, len(stretch))


def _missing(stretch: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    """The cycle fails to come: the series stays about its middle."""
    return np.median(stretch) + 0.1 * (stretch - np.median(stretch))


def _faster(stretch: np.ndarray, scale: float, random: np.random.Generator) -> np.ndarray:
    places = np.linspace(0, len(stretch) * random.choice([1.5, 2.0]), len(stretch)) % (len(stretch) - 1)
    return np.interp(places, np.arange(len(stretch)), stretch)


KINDS: dict[str, Make] = {
    "spike": _spike,
    "level shift": _level,
    "drift": _drift,
    "stuck": _stuck,
    "noise burst": _noise,
    "missing cycle": _missing,
    "frequency change": _faster,
}


def inject(
    values: np.ndarray, kinds: tuple[str, ...] = tuple(KINDS), count: int = 7, length: int = 64,
    seed: int = 0, skip: int = 0,
) -> tuple[np.ndarray, np.ndarray, list[dict[str, object]]]:  # fmt: skip
    """A copy of normal points (n, channels) with `count` anomalies after the first `skip` points.

    Returns the points, labels (n,) int64, and what was done: kind, start, end, channels. Each anomaly takes
    `length` points of one channel or up to a third of them; they stand apart by at least their length, so
    fewer fit into a short series.
    """
    random = np.random.default_rng(seed)
    made, labels = np.array(values, float), np.zeros(len(values), np.int64)
    _, scale, _ = scales(made)
    fits = min(count, (len(made) - skip) // (3 * length))
    room = (len(made) - skip) // max(fits, 1)
    done: list[dict[str, object]] = []
    for number in range(fits):
        kind = kinds[number % len(kinds)]
        start = skip + number * room + length + int(random.integers(0, max(room - 3 * length, 0) + 1))
        stop = start + (length if kind != "spike" else max(2, length // 20))
        most = max(1, made.shape[1] // 3)
        hit = random.choice(made.shape[1], int(random.integers(1, most + 1)), replace=False)
        for channel in hit:
            made[start:stop, channel] = _changed(made[start:stop, channel], kind, scale[channel], random)
        labels[start:stop] = 1
        done.append({"kind": kind, "start": start, "end": stop, "channels": sorted(map(int, hit))})
    return made, labels, done


def _changed(stretch: np.ndarray, kind: str, scale: float, random: np.random.Generator) -> np.ndarray:
    """The anomaly in place of the stretch (n,); points that are missing stay so."""
    there = ~np.isnan(stretch)
    if not there.any():
        return stretch
    places = np.arange(len(stretch))
    whole = np.interp(places, places[there], stretch[there])
    return np.where(there, KINDS[kind](whole, scale, random), np.nan)
