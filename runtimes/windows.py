"""Windows of one channel as the graph takes them: cut, gaps bridged, normalised. Training shares this."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

FLOOR = 0.05  # least spread of a window, in units of the series' own scale: noise is not blown up
CLIP = 5.0  # a normalised value never leaves this, so that 8 bits keep their steps small
SEEN = 0.75  # share of a window's points that must be there for it to be asked about


def cut(values: np.ndarray, window: int, ends: np.ndarray) -> np.ndarray:
    """Windows (ends, channels, window) of `values` (n, channels) that end before the given positions."""
    return np.asarray(sliding_window_view(values, window, axis=0)[ends - window])


def bridge(windows: np.ndarray) -> np.ndarray:
    """A copy of `windows` (m, window) with NaN drawn through: a line inside, the nearest value at an end."""
    filled = windows.copy()
    gappy = np.flatnonzero(np.isnan(windows).any(axis=1))
    if len(gappy):
        filled[gappy] = _drawn(windows[gappy])
    return filled


def _drawn(windows: np.ndarray) -> np.ndarray:
    size = windows.shape[1]
    seen, places = ~np.isnan(windows), np.arange(size)
    before = np.maximum.accumulate(np.where(seen, places, -1), axis=1)
    after = np.minimum.accumulate(np.where(seen, places, size)[:, ::-1], axis=1)[:, ::-1]
    left = np.where(before < 0, after, before).clip(0, size - 1)
    right = np.where(after == size, before, after).clip(0, size - 1)
    low, high = np.take_along_axis(windows, left, 1), np.take_along_axis(windows, right, 1)
    share = (places - left) / np.maximum(right - left, 1)
    return np.nan_to_num(low + (high - low) * share)


def normalise(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows (m, window), scaled by the profile and without NaN, as the graph takes them.

    Returns float32 values (m, window), and each window's mean and spread (m,) float64, which bring what the
    graph expects back: `expected * spread + mean`.
    """
    mean = windows.mean(axis=1)
    moved = windows - mean[:, None]
    spread = np.sqrt(np.square(moved).mean(axis=1))
    floored = np.maximum(spread, FLOOR)
    return np.clip(moved / floored[:, None], -CLIP, CLIP).astype(np.float32), mean, floored
