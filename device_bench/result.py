"""From what was measured to a bench row: figures, and the remarks that a reader of them needs."""

import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from device_bench import statistics, sustained
from device_bench.measure import Timings
from device_bench.quality import size
from device_bench.rows import EXTRA_KEYS, KEYS

HARNESS = "empty call"
BUSY = 0.9
UNSTEADY = 0.05
PERIOD_MS = 10.0  # of the processor quota of a simulated profile
TIMES = (
    "latency_ms", "cold_start_ms", "peak_rss_mb", "outliers", "ratio_to", "overhead_ms", "overhead_share",
    "rerun", "rss_mb", "sustained", "energy_mj", "energy_source", "energy", "generation",
)  # fmt: skip


def key_of(name: str, tokenized: bool) -> str:
    """The name of an entry's call in the loop."""
    return f"{name} {'with' if tokenized else 'without'} tokenization"


def sample(inputs: Sequence[Any]) -> dict[str, Any]:
    """The `sample` block: how many inputs, and how long (of windows in points)."""
    lengths = [size(one) for one in inputs]
    found: dict[str, Any] = {
        "n": len(inputs),
        "chars_p50": int(np.median(lengths)),
        "chars_max": max(lengths),
    }
    return {**found, "unit": "points"} if isinstance(inputs[0], np.ndarray) else found


def ratio(
    reference: str | None, name: str, tokenized: bool, timings: Timings, sizes: tuple[int, int], seed: int
) -> dict[str, Any] | None:
    """The `ratio_to` block of an entry; sizes: bytes of the reference and of the entry."""
    if reference is None:
        return None
    theirs, ours = (timings.ns[key_of(one, tokenized)] / 1e6 for one in (reference, name))
    speed, low, high = statistics.ratio_of_medians(theirs, ours, seed)
    size = sizes[0] / sizes[1] if sizes[1] else None
    return {"entry": reference, "speed": speed, "ci95": [low, high], "size": size}


def timed(key: str, timings: Timings, again: Timings | None, inputs: int, seed: int) -> dict[str, Any]:
    """What the samples of one call say, and those of the second loop."""
    samples = timings.ns[key] / 1e6
    latency = statistics.summarise(samples, seed)
    overhead = float(np.median(timings.ns[HARNESS] / 1e6))
    return {
        "n": len(samples),
        "seconds": float(samples.sum() / 1e3),
        "latency_ms": latency,
        "outliers": statistics.outliers(samples),
        "overhead_ms": overhead,
        "overhead_share": overhead / statistics.median(samples),
        "rerun": None if again is None else rerun(samples, again.ns[key] / 1e6, inputs),
    }


def rerun(samples: statistics.Samples, again: statistics.Samples, inputs: int) -> dict[str, Any]:
    """The `rerun` block from two loops (ms): p50 of the second, and its distance from the first's, as a part.

    The second loop is shorter and saw fewer texts, so only rounds on the same texts are compared.
    """
    shared = min(len(samples), len(again), inputs)
    first = statistics.median(samples[np.arange(len(samples)) % inputs < shared])
    second = statistics.median(again[np.arange(len(again)) % inputs < shared])
    return {"p50": second, "difference": second / first - 1, "n": len(again)}


def remarks(values: dict[str, Any], cpu_share: float) -> list[str]:
    """What a reader of a row's times has to know."""
    notes = []
    n, again, profile = values["n"], values["rerun"], values["simulated_profile"]
    if values["quick"]:
        notes.append(f"quick: {n} rounds, so bench without --quick for figures to quote")
    if profile:
        notes.append(
            f"simulated: profile {profile} slows this machine down, so these are no figures of such a device"
        )
        if values["latency_ms"]["p50"] < PERIOD_MS:
            notes.append(
                f"p50 under the {PERIOD_MS:g} ms period of the quota: answers run at full speed between "
                "pauses, so read the mean"
            )
    if n < 100:
        notes.append(f"p99: from {n} rounds only, so close to the slowest one")
    if values["threads"] == 1 and cpu_share < BUSY and not profile:
        notes.append(
            f"busy machine: this process had the processor for {cpu_share:.0%} of the run, "
            "so latencies are too high"
        )
    if again and abs(again["difference"]) > UNSTEADY:
        notes.append(
            f"rerun: p50 {again['difference']:+.1%} in a second loop on the same texts, over "
            f"{UNSTEADY:.0%}: the machine was not quiet or changed its speed, so do not quote this p50"
        )
    if values["overhead_share"] > 0.01:
        notes.append(f"harness: an empty call takes {values['overhead_share']:.1%} of the p50")
    if values["sustained"]:
        notes.append(sustained.told(values["sustained"]))
    return notes


def row(
    values: dict[str, Any], cpu_share: float, notes: Sequence[str], distorted: str | None
) -> dict[str, Any]:
    """The row; `values` has every key but `note` and `versions`. Times that say nothing are left out."""
    told = remarks(values, cpu_share)
    if distorted:
        values = values | dict.fromkeys(TIMES)
        told = [f"{distorted}: times and memory are not reported"]
    note = "; ".join(filter(None, [*told, *notes]))
    about = {"engine": values["engine"], "engine_version": values["engine_version"]}
    values = {**values, "note": note, "versions": versions(about)}
    return {key: values[key] for key in (*KEYS, *EXTRA_KEYS)}


def versions(about: dict[str, Any]) -> dict[str, str]:
    """What ran it: the engine, and the packages around it."""
    found = {"python": platform.python_version(), about["engine"]: str(about["engine_version"])}
    for package in ("edgewise", "numpy", "tokenizers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # pushed to a device as plain files
    return found
