"""What speaks for an anomaly: the parts of a score, from the model's answers about a piece of a stream."""

import numpy as np

from runtimes.profile import PARTS, Profile
from runtimes.windows import SEEN, bridge, normalise

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

    `lacking` (n,): how many points are missing right before each of them. They count as rows of NaN, and
    none of these is made: `places` tells where the others stand, so work and memory go by what came.
    Afterwards `kept` and `phase` are where the stream stands. All sums run over the same points however a
    stream is cut into pieces, so that the same scores come of it.
    """

    def __init__(
        self, profile: Profile, kept: dict[str, np.ndarray], phase: int, rows: np.ndarray, lacking: np.ndarray
    ) -> None:
        self.profile, self.kept, self.phase, self.rows = profile, kept, phase, rows
        window, patch = len(kept["buffer"]), len(kept["forecast"])
        self.places = np.arange(len(rows)) + np.cumsum(lacking)
        self.span = int(self.places[-1]) + 1
        self.history = np.concatenate([kept["buffer"], rows])
        self.at = np.concatenate([np.arange(-window, 0), self.places])
        self.hop, self.place = np.divmod(phase + self.places, patch)
        last = (phase + self.span) // patch
        # Hops since the piece began; those that fall into a gap are asked about only if a point needs them.
        hops = np.arange(1, last + 1) if self.span == len(rows) else np.union1d(self.hop, last)
        self.hops = hops[hops > 0]
        self.seen, self.windows = np.empty((0, window), bool), np.empty((0, window), np.float32)
        self.asked = np.zeros((len(self.hops), rows.shape[1]), bool)
        if len(self.hops):
            self._ask(self.hops * patch - phase, window, patch)

    def _ask(self, ends: np.ndarray, window: int, patch: int) -> None:
        """The windows that end before these places, but for those in which too much is missing."""
        counts = np.cumsum(np.pad(~np.isnan(self.history), ((1, 0), (0, 0))), axis=0)
        first, early, last = (
            counts[self.at.searchsorted(ends - back)] for back in (window, window - patch, 0)
        )
        self.asked = (last - first >= SEEN * window) & (early > first)
        some = np.flatnonzero(self.asked.any(axis=1))
        places = ends[some][:, None] + np.arange(-window, 0)
        rows = np.minimum(self.at.searchsorted(places), len(self.at) - 1)
        found = self.history[rows]
        found[self.at[rows] != places] = np.nan
        raw = found.transpose(0, 2, 1)[self.asked[some]]
        self.seen = ~np.isnan(raw)
        self.raw = bridge(raw)
        self.windows, self.mean, self.spread = normalise(self.raw)

    def finish(self, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(evidence (n, channels, parts), forecasts (n, channels) scaled), given the model's answers."""
        kept, (patch, count) = self.kept, self.kept["forecast"].shape
        forecasts = np.full((1 + len(self.hops), count, patch), np.nan)
        slow = np.full((1 + len(self.hops), count, SLOW), np.nan)
        forecasts[0], slow[0] = kept["forecast"].T, kept["slow"].T
        if len(self.windows):
            slow[1:][self.asked], forecasts[1:][self.asked] = self._judged(expected)
        hop = self.hops.searchsorted(self.hop, side="right")
        ahead = forecasts[hop, :, self.place]
        errors = np.square(np.minimum(np.abs(self.rows - ahead) / self.profile.ahead[self.place], MOST))
        recent = np.concatenate([kept["recent"], errors])
        at = np.concatenate([np.arange(-len(kept["recent"]), 0), self.places])
        evidence = np.empty((*errors.shape, len(PARTS)))
        window, short = len(kept["buffer"]), max(patch // 2, 1)
        for part, mean in enumerate(
            lately(recent, at, len(errors), (short, window // 2, LONG * window), 1.0)
        ):
            evidence[..., part] = np.sqrt(np.maximum(mean, 0))
        level = np.clip(self.history, -NO_MORE, NO_MORE)
        for part, mean in enumerate(lately(level, self.at, len(errors), (short, window), 0.0), 3):
            evidence[..., part] = mean
        evidence[..., 5:] = slow[hop]
        self.phase = int((self.phase + self.span) % patch)
        self.kept = {
            "buffer": newest(self.history, self.at, window), "forecast": forecasts[-1].T.copy(),
            "slow": slow[-1].T.copy(), "recent": newest(recent, at, len(kept["recent"])),
        }  # fmt: skip
        return evidence, ahead

    def _judged(self, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slow parts (windows, SLOW) and forecasts (windows, patch), scaled."""
        window = self.raw.shape[1]
        back = expected * self.spread[:, None] + self.mean[:, None]
        off = np.square(np.where(self.seen, self.raw - back[:, :window], 0)).sum(axis=1)
        shape = np.sqrt(off / self.seen.sum(axis=1))
        spread = np.log(np.maximum(self.raw[:, -window // 4 :].std(axis=1), FLAT))
        return np.stack([shape, spread], axis=1), back[:, window:]


def newest(rows: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """The last `size` places (size, channels) up to the last of `at`, NaN where no row stands."""
    found = np.full((size, rows.shape[1]), np.nan)
    first = int(at[-1]) + 1 - size
    low = int(at.searchsorted(first))
    found[at[low:] - first] = rows[low:]
    return found


def lately(
    rows: np.ndarray, at: np.ndarray, count: int, sizes: tuple[int, ...], usual: float
) -> list[np.ndarray]:
    """For each of `sizes` the mean (count, channels) of so many places up to each of the last `count` rows.

    What is missing counts as usual, so that a few points do not speak for many; NaN where a row itself is.
    `rows` (m, channels) stand at the places `at` (m,), which increase; m at least `count - 1` and the largest
    size.
    """
    seen = ~np.isnan(rows[-count:])
    off = np.nan_to_num(rows - usual, nan=0.0)
    lows = [at.searchsorted(at[-count:] - size, side="right") for size in sizes]
    if count == 1:  # a stream that comes point by point
        sums = [off[low[0] :].sum(axis=0)[None] for low in lows]
    else:
        total = np.cumsum(np.pad(off, ((1, 0), (0, 0))), axis=0)
        sums = [total[len(rows) - count + 1 :] - total[low] for low in lows]
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
