"""Energy of an answer: answers back to back for some seconds, less what the machine draws when idle."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from device_bench.meters import Meter

PERIOD = 0.2
LEAST_MOVES = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Energy:
    """`mj` of one answer above idle, or None and the `reason`. idle_mw and run_mw: both sides of it."""

    mj: float | None
    idle_mw: float
    run_mw: float
    n: int
    seconds: float
    reason: str = ""


@dataclass
class _Trace:
    """What a meter told during a block: (seconds, value)."""

    points: list[tuple[float, float]] = field(default_factory=list)
    failed: OSError | None = None

    def moves(self) -> int:
        values = [value for _, value in self.points]
        return sum(one != other for one, other in pairwise(values))

    def watts(self, counts: bool) -> float:
        """Mean power: the difference of a counter over time, or the readings weighted by time."""
        (start, first), (end, last) = self.points[0], self.points[-1]
        if counts:
            return (last - first) / (end - start)
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(self.points)) / (end - start)


def measure(meter: Meter, call: Callable[[int], object], inputs: int) -> Energy:
    """A block of waiting, then a block of call(0), call(1), … (modulo `inputs`), each of `meter.seconds`.

    A meter that fails, moves too seldom or shows nothing above idle gives no figure but the reason.
    """
    seconds = meter.seconds
    try:
        idle, _ = _watch(meter, lambda: time.sleep(seconds))
        run, n = _watch(meter, lambda: _answer(call, inputs, seconds))
    except OSError as error:
        return Energy(None, 0.0, 0.0, 0, seconds, f"{meter.source}: {error.strerror or error}")
    took = run.points[-1][0] - run.points[0][0]
    before, during = idle.watts(meter.counts), run.watts(meter.counts)
    mj = (during - before) * took / n * 1e3
    reason = ""
    if meter.counts and run.moves() < LEAST_MOVES:
        reason = f"{meter.source}: it moved {run.moves()} times in {took:.0f} s, too coarse for a figure"
    elif mj <= 0:
        reason = f"{meter.source}: {during:.2f} W running is no more than {before:.2f} W idle"
    return Energy(None if reason else mj, before * 1e3, during * 1e3, n, took, reason)


def _answer(call: Callable[[int], object], inputs: int, seconds: float) -> int:
    end, n = time.monotonic() + seconds, 0
    while n == 0 or time.monotonic() < end:
        call(n % inputs)
        n += 1
    return n


def _watch(meter: Meter, work: Callable[[], T]) -> tuple[_Trace, T]:
    """Reads the meter beside the work, every PERIOD seconds, and at both ends of it."""
    trace, done = _Trace(), threading.Event()

    def look() -> None:
        trace.points.append((time.monotonic(), meter.read()))

    def watch() -> None:
        while not done.wait(PERIOD):
            try:
                look()
            except OSError as error:
                trace.failed = error
                return

    look()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        result = work()
    finally:
        done.set()
        thread.join()
    if trace.failed is not None:
        raise trace.failed
    look()
    return trace, result
