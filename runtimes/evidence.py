"""What speaks for an anomaly: the parts of a score, from the model's answers about a piece of a stream."""

import numpy as np

from runtimes.profile import PARTS, Profile
from runtimes.windows import SEEN, bridge, cut, normalise

MOST = 1e3  # no error counts for more times the usual one, and no part weighs more
# The long course remembers: it is to rank points, and to hold no alarm open for its length.
MOST_OF = np.array([2.0 if part == "course" else MOST for part in PARTS])
FLAT = 1e-8  # a spread below this share of the scale is none
TOP = 0.2  # share of the channels, the strangest ones, whose mean is the score
LONG = 4  # windows over which the longest mean of forecast errors goes
SLOW = 2  # parts that change once a hop: shape and spread
NO_MORE = 1e6  # scaled values count as no larger, so that sums stay exact enough


def shapes(window: int, patch: int, channels: int) -> dict[str, tuple[int, int]]:
    """What a stream keeps: its last points, the standing forecast and slow parts, the last errors."""
    return {
        "buffer": (window, channels),
        "forecast": (patch, channels),
        "slow": (SLOW, channels),
        "recent": (LONG * window - 1, channels),
    }


class Piece:
    """Some points (n, channels) of a stream, scaled: `windows` for the model first, then `finish`.

    Afterwards `kept` and `phase` are where the stream stands. All sums run over the same points however a
    stream is cut into pieces, so that the same scores come of it.
    """

    def __init__(self, profile: Profile, kept: dict[str, np.ndarray], phase: int, rows: np.ndarray) -> None:
        self.profile, self.kept, self.phase, self.rows = profile, kept, phase, rows
        window, patch = len(kept["buffer"]), len(kept["forecast"])
        self.history = np.concatenate([kept["buffer"], rows])
        self.ends = np.arange(window + patch - phase, len(self.history) + 1, patch)
        if not len(self.ends):
            self.windows = np.empty((0, window), np.float32)
            return
        raw = cut(self.history, window, self.ends).reshape(-1, window)
        self.seen = ~np.isnan(raw)
        self.raw = bridge(raw)
        self.windows, self.mean, self.spread = normalise(self.raw)

    def finish(self, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(evidence (n, channels, parts), forecasts (n, channels) scaled), given the model's answers."""
        kept, (patch, count) = self.kept, self.kept["forecast"].shape
        forecasts, slow = kept["forecast"][None], kept["slow"][None]
        if len(self.ends):
            again, on = self._judged(expected)
            forecasts = np.concatenate([forecasts, on.reshape(-1, count, patch).transpose(0, 2, 1)])
            slow = np.concatenate([slow, again.reshape(-1, count, SLOW).transpose(0, 2, 1)])
        hop, place = np.divmod(self.phase + np.arange(len(self.rows)), patch)
        ahead = forecasts[hop, place]
        errors = np.square(np.minimum(np.abs(self.rows - ahead) / self.profile.ahead[place], MOST))
        recent = np.concatenate([kept["recent"], errors])
        evidence = np.empty((*errors.shape, len(PARTS)))
        window, short = len(kept["buffer"]), max(patch // 2, 1)
        for part, mean in enumerate(lately(recent, len(errors), (short, window // 2, LONG * window), 1.0)):
            evidence[..., part] = np.sqrt(np.maximum(mean, 0))
        level = np.clip(self.history, -NO_MORE, NO_MORE)
        for part, mean in enumerate(lately(level, len(errors), (short, window), 0.0), 3):
            evidence[..., part] = mean
        evidence[..., 5:] = slow[hop].transpose(0, 2, 1)
        self.phase = int((self.phase + len(self.rows)) % patch)
        self.kept = {
            "buffer": self.history[-window:].copy(), "forecast": forecasts[-1].copy(),
            "slow": slow[-1].copy(), "recent": recent[-len(kept["recent"]) :].copy(),
        }  # fmt: skip
        return evidence, ahead

    def _judged(self, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slow parts (windows, SLOW) and forecasts (windows, patch), scaled; NaN where too gappy."""
        window = self.raw.shape[1]
        back = expected * self.spread[:, None] + self.mean[:, None]
        counts = self.seen.sum(axis=1)
        off = np.square(np.where(self.seen, self.raw - back[:, :window], 0)).sum(axis=1)
        shape = np.sqrt(off / np.maximum(counts, 1))
        spread = np.log(np.maximum(self.raw[:, -window // 4 :].std(axis=1), FLAT))
        slow, on = np.stack([shape, spread], axis=1), back[:, window:]
        gappy = (counts < SEEN * window) | ~self.seen[:, : on.shape[1]].any(axis=1)
        slow[gappy], on[gappy] = np.nan, np.nan
        return slow, on


def lately(rows: np.ndarray, count: int, sizes: tuple[int, ...], usual: float) -> list[np.ndarray]:
    """For each of `sizes` the mean (count, channels) of so many rows up to each of the last `count` ones.

    What is missing counts as usual, so that a few points do not speak for many; NaN where a row itself is.
    `rows` (m, channels), m at least `count - 1` and the largest size.
    """
    seen = ~np.isnan(rows[-count:])
    off = np.nan_to_num(rows - usual, nan=0.0)
    if count == 1:  # a stream that comes point by point
        sums = [off[-size:].sum(axis=0)[None] for size in sizes]
    else:
        total = np.cumsum(np.pad(off, ((1, 0), (0, 0))), axis=0)
        last = np.arange(len(rows) - count, len(rows)) + 1
        sums = [total[last] - total[last - size] for size in sizes]
    return [np.where(seen, sum_ / size + usual, np.nan) for sum_, size in zip(sums, sizes, strict=True)]


def weigh(evidence: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """How strange each part (n, channels, parts) is: 0 as in half of the normal points, 1 as in 5 of 1,000.

    `usual` (channels, parts, 3): middle, the usual distance from it, and from there to the rare one.
    """
    far = (np.abs(evidence - usual[..., 0]) - usual[..., 1]) / usual[..., 2]
    return np.clip(far, 0, MOST_OF)


def combine(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score (n,) of weights (n, channels, parts), and the shares of the channels and of the parts in it.

    A channel's is the sum of log(1 + weight^2) over its parts: each counts like evidence of its own under
    heavy tails, so that one that is far out does not drown the others. Over channels, the mean of the
    strangest fifth. A channel without a value at a point says nothing there.
    """
    each = np.log1p(np.square(weights))
    told = each.sum(axis=2)
    missing = np.isnan(told)
    if missing.any():
        each[missing], told[missing] = 0, 0
    top = max(1, round(told.shape[1] * TOP))
    score = told[:, 0] if told.shape[1] == 1 else np.sort(told, axis=1)[:, -top:].mean(axis=1)
    total = np.maximum(told.sum(axis=1), 1e-12)[:, None]
    return np.where(missing.all(axis=1), np.nan, score), told / total, each.sum(axis=1) / total
