"""Answers without pause for minutes: how fast the machine still is when it is warm."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from device_bench.heat import Watch

SLICE_S = 10.0
WINDOW_S = 60.0
LEAST_SLICES = 6
MAX_MINUTES = 24 * 60.0


def sustain(
    call: Callable[[int], object],
    inputs: int,
    minutes: float,
    *,
    watch: Watch | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """The `sustained` block: {minutes, slices: [{t_s, n, p50, temperature_c, mhz, throttled}], drop}.

    A slice is 10 s, or a sixth of a shorter run; its p50 is in ms, its `t_s` its end in seconds from the
    start. `drop` is the p50 of the last minute over that of the first (of a third where the run is shorter
    than three minutes): 1.2 is a fifth slower. Calls call(0), call(1), … modulo `inputs`.
    """
    watch = watch or Watch()
    seconds, slice_s = minutes * 60, _slice_s(minutes)
    window = max(1, round(min(WINDOW_S, seconds / 3) / slice_s))
    first: list[list[int]] = []
    last: deque[list[int]] = deque(maxlen=window)
    slices, position, start = [], 0, clock()
    for number in range(1, slices_of(minutes) + 1):
        samples: list[int] = []
        end = start + round(number * slice_s * 1e9)
        while not samples or clock() < end:
            before = clock()
            call(position % inputs)
            samples.append(clock() - before)
            position += 1
        if len(first) < window:
            first.append(samples)
        last.append(samples)
        p50 = float(np.median(samples)) / 1e6
        slices.append(
            {"t_s": round((clock() - start) / 1e9, 2), "n": len(samples), "p50": p50, **watch.look()}
        )
        progress()
    drop = float(np.median(np.concatenate(last)) / np.median(np.concatenate(first)))
    return {"minutes": minutes, "slices": slices, "drop": drop}


def slices_of(minutes: float) -> int:
    """How many slices a run has."""
    return math.ceil(minutes * 60 / _slice_s(minutes) - 1e-9)


def _slice_s(minutes: float) -> float:
    return min(SLICE_S, minutes * 60 / LEAST_SLICES)


def told(block: dict[str, Any]) -> str:
    """The block in words, for the note of a row."""
    slices = block["slices"]
    parts = [f"{block['minutes']:g} min, p50 at the end {block['drop']:.2f} times that at the start"]
    temperatures = [one["temperature_c"] for one in slices if one["temperature_c"] is not None]
    if temperatures:
        parts.append(f"{temperatures[0]:.0f} to {max(temperatures):.0f} °C")
    if any(one["throttled"] for one in slices):
        parts.append(f"throttled in {sum(bool(one['throttled']) for one in slices)} of {len(slices)} slices")
    return f"sustained: {', '.join(parts)}"
