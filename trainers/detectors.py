"""The detectors that ours stands beside: random, moving z-score, Sub-PCA, isolation forest, matrix profile.

Each takes a Series and gives float scores (n,), higher is stranger. What they may know differs, and each says
so: fitted on the training part and causal (a point is judged by what came before it), or fitted on the whole
series, labels apart, as they are usually published. Channels are joined as in our own detector: standardised
by the training part, then the mean of the three strangest.
"""

import os
from collections.abc import Callable

import numpy as np

from trainers.series import Series, complete

WORST_CHANNELS = 3
SHORTEST, LONGEST, DEFAULT_WINDOW, JOINT_WINDOW = 10, 300, 100, 32
_MOVING = 100
_MAX_CELLS = 512


def detectors() -> dict[str, Callable[[Series], np.ndarray]]:
    """The baselines by name."""
    return {
        "random": random_scores,
        "z-score": z_scores,
        "sub-pca": subspace_scores,
        "sub-pca-centred": centred_subspace_scores,
        "sub-pca-whole": whole_subspace_scores,
        "isolation-forest": forest_scores,
        "matrix-profile": profile_scores,
    }


def random_scores(series: Series) -> np.ndarray:
    """Uniform noise: the floor. Its VUS-PR is about the share of anomalous points."""
    return np.random.default_rng(0).uniform(size=len(series))


def z_scores(series: Series) -> np.ndarray:
    """Distance from the mean of the last 100 points over their standard deviation. Causal, nothing fitted."""
    values = _scaled(series)
    count = np.minimum(np.arange(len(values)), _MOVING)[:, None]
    sums, squares = _moving_sums(values), _moving_sums(values**2)
    mean = sums / np.maximum(count, 1)
    spread = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    scores = np.abs(values - mean) / np.maximum(spread, 0.01)
    scores[:2] = 0
    return worst(scores)


def _moving_sums(values: np.ndarray) -> np.ndarray:
    """(n, c) sums over the at most 100 points before each."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    ends = np.arange(len(values))
    return total[ends] - total[np.maximum(ends - _MOVING, 0)]


def subspace_scores(series: Series) -> np.ndarray:
    """Sub-PCA fitted on the training part, causal: a window is judged when its last point is there."""
    return _subspace(series, series.train_end, causal=True)


def centred_subspace_scores(series: Series) -> np.ndarray:
    """Sub-PCA fitted on the training part, a window judged at its middle: it sees half a window ahead."""
    return _subspace(series, series.train_end, causal=False)


def whole_subspace_scores(series: Series) -> np.ndarray:
    """Sub-PCA as it is usually published: fitted on the whole series, a window judged at its middle."""
    return _subspace(series, len(series), causal=False)


def _subspace(series: Series, fit_end: int, causal: bool) -> np.ndarray:
    """Principal components of sliding windows, one channel at a time. The score is the mean of a window's
    squared coordinates, each over its variance, so that rare directions weigh most; the variances have a
    floor of a thousandth of their mean. (Of seven variants tried, this one did best over all sets.)"""
    from sklearn.decomposition import PCA

    values = _scaled(series)
    window = min(window_of(series), max(2, series.train_end // 4))
    columns = []
    for channel in range(values.shape[1]):
        windows = np.lib.stride_tricks.sliding_window_view(values[:, channel], window)
        with np.errstate(invalid="ignore"):  # shares of no variance at all, in a constant channel
            model = PCA(random_state=0).fit(windows[: max(2, fit_end - window + 1)])
        variance = model.explained_variance_
        floor = 1e-3 * (1 + variance.mean())
        scores = (model.transform(windows) ** 2 / (variance + floor)).mean(axis=1)
        columns.append(_placed(scores, len(values), window, causal))
    return worst(_standard(np.stack(columns, axis=1), series.train_end))


def forest_scores(series: Series) -> np.ndarray:
    """Isolation forest over sliding windows of all channels, fitted on the training part, causal."""
    from sklearn.ensemble import IsolationForest

    values = _scaled(series)
    channels = values.shape[1]
    window = max(1, min(window_of(series), _MAX_CELLS // channels, series.train_end // 4))
    windows = np.lib.stride_tricks.sliding_window_view(values, window, axis=0).reshape(-1, channels * window)
    windows = windows.astype(np.float32)
    model = IsolationForest(n_estimators=100, random_state=0, n_jobs=1)
    model.fit(windows[: max(2, series.train_end - window + 1)])
    return _placed(-model.score_samples(windows), len(values), window, causal=True)


def profile_scores(series: Series) -> np.ndarray:
    """Matrix profile (stumpy): the distance of a window to its nearest neighbour in the whole series, at its
    middle. More than three channels are first brought to their three main components."""
    # Numba compiles for half a minute before it is faster than anything else here.
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    import stumpy

    values = _scaled(series)
    if values.shape[1] > WORST_CHANNELS:
        from sklearn.decomposition import PCA

        values = PCA(WORST_CHANNELS, random_state=0).fit(values[: series.train_end]).transform(values)
    window = max(3, min(window_of(series), len(values) // 4))
    columns = []
    for channel in range(values.shape[1]):
        column = np.ascontiguousarray(values[:, channel])
        distance = stumpy.stump(column, window)[:, 0].astype(np.float64)
        distance[~np.isfinite(distance)] = 0
        columns.append(_placed(distance, len(values), window, causal=False))
    return worst(np.stack(columns, axis=1))


# what they share


def window_of(series: Series) -> int:
    """Points in a window: the period where there is one, else 100; for several channels 32. (Sub-PCA did
    best with these of 16, 32, 64, 100 and the period; the choice knew the labels, in its favour.)"""
    if len(series.names) > 1:
        return JOINT_WINDOW
    return period_of(complete(series.train)[:, 0]) or DEFAULT_WINDOW


def period_of(values: np.ndarray) -> int:
    """The lag of 10 to 300 points at which `values` (n,) repeats best: the highest inner peak of the
    autocorrelation, 0 where none is over 0.1 and 0.1 over the lowest point before it."""
    rho = autocorrelation(values, LONGEST + 1)
    inner = np.arange(max(SHORTEST, 1), len(rho) - 1)
    above = rho[inner] - np.minimum.accumulate(rho)[inner]
    peak = (rho[inner] > rho[inner - 1]) & (rho[inner] >= rho[inner + 1])
    peaks = inner[peak & (rho[inner] > 0.1) & (above > 0.1)]
    return int(peaks[np.argmax(rho[peaks])]) if len(peaks) else 0


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """(lags + 1,) or shorter: the correlation of `values` (n,) with itself at each lag; 0 for a constant."""
    centred = values - values.mean()
    lags = min(lags, len(values) // 2)
    power = np.abs(np.fft.rfft(centred, 2 * len(values))) ** 2
    products = np.fft.irfft(power)[: lags + 1]
    return products / products[0] if products[0] > 1e-12 else np.zeros(lags + 1)


def worst(scores: np.ndarray) -> np.ndarray:
    """(n,) from (n, c): the mean of the three largest channels."""
    top = min(WORST_CHANNELS, scores.shape[1])
    mean: np.ndarray = np.sort(scores, axis=1)[:, -top:].mean(axis=1)
    return mean


def _scaled(series: Series) -> np.ndarray:
    """(n, c) without NaN, each channel over the training part's mean and standard deviation; for channels
    that are constant there a tenth of their level counts as one, so that a change in them shows."""
    values = complete(series.values)
    train = values[: series.train_end]
    spread = train.std(axis=0)
    level = np.abs(train).max(axis=0)
    spread = np.where(spread > 1e-9 * (1 + level), spread, 0.1 * np.maximum(level, 1))
    return np.clip((values - train.mean(axis=0)) / spread, -1e4, 1e4)


def _standard(scores: np.ndarray, train_end: int) -> np.ndarray:
    """(n, c) scores over the training part's mean in each channel."""
    return scores / np.maximum(scores[:train_end].mean(axis=0), 0.1)


def _placed(scores: np.ndarray, count: int, window: int, causal: bool) -> np.ndarray:
    """(n,) from one score a window: at its last point, or its middle; the ends repeat the nearest."""
    before = window - 1 if causal else (window - 1) // 2
    return np.pad(scores, (before, count - len(scores) - before), mode="edge")
