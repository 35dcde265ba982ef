"""A tiny detector, really trained: a line with a bottleneck, window 32 and patch 4, in a second."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WINDOW, PATCH = 32, 4
WARM_UP = 3 * WINDOW


@dataclass(frozen=True)
class Series:
    """What training reads of a series."""

    values: np.ndarray
    train_end: int
    names: tuple[str, ...] = ("value",)
    step: float = 1.0
    name: str = "waves"


def waves(count: int, channels: int = 1, seed: int = 0, start: int = 0) -> np.ndarray:
    """Float64 (count, channels): sines of a period of 16 with a little noise."""
    rng = np.random.default_rng([seed, start])
    t = np.arange(start, start + count)[:, None] + np.arange(channels) * 3
    return np.asarray(10 + np.sin(t * 2 * np.pi / 16) + rng.normal(0, 0.05, (count, channels)))


def trained(out: Path) -> Any:
    """The checkpoint at `out`."""
    from trainers.detector import DetectorConfig, train_detector

    config = DetectorConfig(kind="subspace", window=WINDOW, patch=PATCH, bottleneck=4, steps=1)
    return train_detector([Series(waves(1500, seed=seed), 1500) for seed in range(2)], config, out)
