"""How fast variants of several bundles are beside each other: one interleaved run in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_bench.measure import interleave
from device_bench.statistics import ratio_of_medians
from runtimes.load import load


def compare(
    entries: Mapping[str, tuple[Path, str]],
    texts: Sequence[Any],
    rounds: int,
    seconds: float,
    threads: int = 1,
) -> dict[str, dict[str, Any]]:
    """Name → (bundle, variant) timed: {name: {"p50_ms", "speed", "ci95", "n"}}.

    Batch 1, one thread, tokenization included, `texts` at their natural lengths, at most `seconds` in all.
    `speed` is how many times as fast as the first entry, by whole rounds, with its 95% interval.
    """
    calls = {}
    for name, (path, variant) in entries.items():
        model = load(path, variant=variant, threads=1)
        calls[name] = lambda position, model=model: model.answers([texts[position]])
    samples = interleave(calls, len(texts), rounds, seconds).ns
    first, found = samples[next(iter(entries))], {}
    for name, ns in samples.items():
        speed, low, high = ratio_of_medians(first, ns)
        p50 = float(np.median(ns)) / 1e6
        found[name] = {"p50_ms": p50, "speed": speed, "ci95": [low, high], "n": len(ns)}
    return found
