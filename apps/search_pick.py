"""What a search found: the Pareto set, the pick, and by how much the best found misses where nothing fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.search_space import said


@dataclass(frozen=True)
class Targets:
    """What the pick must keep. `max_drop` in accuracy as a fraction, latency in ms, size in MB of 10**6
    bytes (variant and tokenizer). None: no such target."""

    max_drop: float
    latency_ms: float | None = None
    size_mb: float | None = None


@dataclass(frozen=True)
class Original:
    """The checkpoint as it came. `accuracy` on the n validation rows; `reference` is its quickest fp32
    variant on the target, with its median latency there and its bytes (tokenizer included)."""

    accuracy: float
    n: int
    reference: str
    p50_ms: float
    size_bytes: int


@dataclass(frozen=True)
class Tried:
    """One trial. `speed`: how many times as fast as the original's fp32, with its 95% interval, from one
    interleaved run; `p50_ms` is the original's p50 divided by that. `why`: the reason of a failed one."""

    number: int
    shape: dict[str, Any]
    variant: str
    accuracy: float | None = None
    speed: float | None = None
    speed_ci95: tuple[float, float] | None = None
    p50_ms: float | None = None
    size_bytes: int | None = None
    seconds: float | None = None
    bundle: str | None = None
    why: str | None = None

    @property
    def name(self) -> str:
        return f"{said(self.shape)}, {self.variant}"

    @property
    def figures(self) -> tuple[float, float, int] | None:
        """Accuracy, p50 in ms, bytes; None where the trial failed."""
        if self.accuracy is None or self.p50_ms is None or self.size_bytes is None:
            return None
        return self.accuracy, self.p50_ms, self.size_bytes


def pareto(tried: Sequence[Tried]) -> list[Tried]:
    """Those that no other beats: none is as good in accuracy, p50 and size and better in one. By p50."""
    known = [(one, one.figures) for one in tried if one.figures is not None]
    kept = [one for one, mine in known if mine and not any(_beats(f, mine) for _, f in known if f)]
    return sorted(kept, key=lambda one: (one.p50_ms or 0, one.number))


def _beats(one: tuple[float, float, int], other: tuple[float, float, int]) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1] and one[2] <= other[2]


def misses(one: Tried, targets: Targets, original: Original) -> dict[str, float]:
    """What a trial misses → by how much, in the target's own unit; empty where it keeps everything.

    `speed` is there where the trial is not surely at least as fast as the original's fp32: the lower end of
    its interval counts. The fp32 reference itself is not slower than itself.
    """
    if one.figures is None or one.speed_ci95 is None:
        return {"failed": float("inf")}
    accuracy, p50, size = one.figures
    over = {
        "drop": original.accuracy - accuracy - targets.max_drop,
        "latency_ms": p50 - targets.latency_ms if targets.latency_ms is not None else 0.0,
        "size_mb": size / 1e6 - targets.size_mb if targets.size_mb is not None else 0.0,
        "speed": 1 - one.speed_ci95[0],
    }
    # 80 of 100 rows right minus 79 of 100 is a hair over 0.01 in floating point.
    return {key: value for key, value in over.items() if not value <= 1e-9}


def pick(tried: Sequence[Tried], targets: Targets, original: Original) -> Tried | None:
    """The trial to ship, None where none keeps the budget.

    With a latency target alone the smallest that meets it, with a size target alone the fastest (of those
    that are as fast within what can be told apart, the smallest); else the one with the largest product of
    speed and shrinkage. Never one that is slower than the original's fp32.
    """
    fits = [one for one in tried if not misses(one, targets, original)]
    if targets.size_mb is not None and targets.latency_ms is None:
        fits = _as_fast_as_the_fastest(fits)
    return min(fits, key=lambda one: _rank(one, targets), default=None)


def _as_fast_as_the_fastest(tried: Sequence[Tried]) -> list[Tried]:
    """Intervals that overlap the fastest one's, or medians within 5%: two runs differ by as much."""
    best = max(tried, key=lambda one: one.speed or 0, default=None)
    if best is None or best.speed is None or best.speed_ci95 is None:
        return []
    least = min(best.speed_ci95[0], 0.95 * best.speed)
    return [one for one in tried if one.speed_ci95 is not None and one.speed_ci95[1] >= least]


def _rank(one: Tried, targets: Targets) -> tuple[float, float, float, int]:
    accuracy, p50, size = one.figures or (0.0, 0.0, 0)
    both = (targets.latency_ms is None) == (targets.size_mb is None)
    return p50 * size if both else size, p50 * size, -accuracy, one.number


def nearest(tried: Sequence[Tried], targets: Targets, original: Original) -> Tried | None:
    """The trial that misses by least: its worst miss, as a share of the target, is the smallest."""
    known = [one for one in tried if one.figures is not None]
    return min(known, key=lambda one: (worst_miss(one, targets, original), one.number), default=None)


def worst_miss(one: Tried, targets: Targets, original: Original) -> float:
    """The worst miss of a measured trial as a share of its target; 0 where it keeps everything."""
    units = {
        "drop": max(targets.max_drop, 0.01),
        "latency_ms": targets.latency_ms,
        "size_mb": targets.size_mb,
    }
    over = misses(one, targets, original)
    return max((value / (units.get(key) or 1.0) for key, value in over.items()), default=0.0)


def told_miss(one: Tried, targets: Targets, original: Original) -> str:
    """ "drop 0.023, 0.013 over --max-drop 0.01; …"."""
    accuracy, p50, size = one.figures or (0.0, 0.0, 0)
    over = misses(one, targets, original)
    lines = {
        "drop": f"drop {original.accuracy - accuracy:.4f}, {over.get('drop', 0):.4f} over the "
        f"{targets.max_drop:g} of --max-drop",
        "latency_ms": f"p50 {p50:.3g} ms, {over.get('latency_ms', 0):.3g} ms over --target-latency-ms",
        "size_mb": f"{size / 1e6:.3g} MB, {over.get('size_mb', 0):.3g} MB over --target-size-mb",
        "speed": f"not surely faster than fp32 ({original.reference}): {one.speed or 0:.2f} times as fast",
    }
    return "; ".join(lines[key] for key in over)
