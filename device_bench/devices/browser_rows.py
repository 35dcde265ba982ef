"""What a page measured → bench rows, with the same statistics as everywhere."""

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from device_bench import cold, machine, quality, statistics
from device_bench.bench import BenchConfig, effective
from device_bench.devices import npm
from device_bench.rows import EXTRA_KEYS, KEYS
from runtimes.bundle import MANIFEST, Bundle
from runtimes.errors import DeviceError, InputError
from runtimes.golden import inputs_of, outputs_of
from runtimes.load import reference

HARNESS = "empty call"
MB = 2**20
# No engine holds less beside the graph. Chromium leaves LiteRT's WebAssembly memory out of what it tells.
LEAST_ENGINE_BYTES = 8 * MB
_NO_TIMES: dict[str, Any] = {
    "n": 0, "seconds": 0.0, "latency_ms": None, "outliers": None, "overhead_ms": None, "notes": [],
}  # fmt: skip
ENERGY = "energy: a page cannot read a sensor"


def describe(told: dict[str, Any], here: dict[str, Any] | None) -> dict[str, Any]:
    """`Device.describe` from what a page tells; `here`: this machine's own block, where it runs here."""
    browser = _browser(told)
    system = " ".join(filter(None, [told["platform"], told["platform_version"]])) or None
    memory = told["memory_gb"]
    block = dict.fromkeys(machine.describe()) | (here or {})
    block |= {
        "name": told["model"] or f"{browser} on {told['platform'] or 'an unknown system'}",
        "cores": told["cores"],
        "browser": browser,
    }
    if not here:
        block |= {"os": system, "memory_mb": None if memory is None else int(memory * 1024)}
    pinned = {engine: names[0] for engine, names in npm.PACKAGES.items()}
    return {
        "device": block,
        "emulated": False,
        "python": None,
        "machine": told["platform"],
        "packages": {},
        "engines": {engine: f"{name} {npm.pins()[name]['version']}" for engine, name in pinned.items()},
        "browser": browser,
        "isolated": told["isolated"],
        "webgpu": told["webgpu"],
    }


def _browser(told: dict[str, Any]) -> str:
    """Name and version: the brand that is neither a decoy nor the engine below it, if there is one."""
    brands = {one["brand"]: one["version"] for one in told["brands"] if "Not" not in one["brand"]}
    own = [brand for brand in brands if brand != "Chromium"] or list(brands)
    return f"{own[0]} {brands[own[0]]}" if own else str(told["agent"])[:200]


def opened(files: Mapping[str, Path | bytes], folder: str) -> Bundle:
    """The pushed bundle, its golden answers readable."""
    start = f"{folder}/"
    held = {name.removeprefix(start): data for name, data in files.items() if name.startswith(start)}
    small = {name: _bytes(held[name]) for name in (MANIFEST, "golden.npz", "tokenizer.json")}
    return Bundle(Path(folder), json.loads(small.pop(MANIFEST)), small)


def _bytes(source: Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def request(asked: dict[str, Any], bundle: Bundle, cores: int | None = None) -> dict[str, Any]:
    """What the page is asked: the same order of texts as `device_bench.bench` takes."""
    config = _config(asked)
    if cores and config.threads > cores:
        raise InputError(f"browser: {config.threads} threads, but it tells of {cores} cores; take fewer")
    order = np.random.default_rng(config.seed).permutation(len(asked["texts"]))
    mixed = [asked["texts"][position] for position in order]
    return {
        "do": "bench",
        "bundle": f"{asked['bundle']}/",
        "variants": asked["variants"],
        "threads": config.threads,
        "rounds": config.rounds,
        "seconds": config.seconds,
        "cold_starts": config.cold_starts,
        "seed": config.seed,
        "tokenization": list(config.tokenization),
        "timed": mixed[: config.rounds],
        "cold": cold.sample(mixed),
        "golden": inputs_of(bundle.golden()),
        "labelled": asked["texts"] if asked["labels"] is not None else None,
    }


def _config(asked: dict[str, Any]) -> BenchConfig:
    known = {field.name for field in fields(BenchConfig)}
    given = {key: value for key, value in asked["config"].items() if key in known}
    return effective(BenchConfig(**{**given, "tokenization": tuple(given["tokenization"])}))


def rows(
    told: dict[str, Any],
    asked: dict[str, Any],
    page_asked: dict[str, Any],
    bundle: Bundle,
    about: dict[str, Any],
) -> list[dict[str, Any]]:
    """One row an entry and tokenization. Raises DeviceError where the page's figures are not whole."""
    config = _config(asked)
    lengths = [len(text) for text in asked["texts"]]
    common = {
        "device": about["device"], "emulated": False, "simulated_profile": None, "batch": 1,
        "energy_mj": None, "energy_source": None, "ratio_to": None, "quick": config.quick,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "sample": {"n": len(lengths), "chars_p50": int(np.median(lengths)), "chars_max": max(lengths)},
        "tokenizer_bytes": bundle.manifest["files"]["tokenizer.json"]["bytes"],
    }  # fmt: skip
    found = []
    try:
        for name, entry in told["entries"].items():
            judged = _judged(entry, asked["labels"], bundle)
            size = bundle.variants[entry["variant"]]["size_bytes"]
            started = _untimed(told["gpu"]) if entry["untimed"] else _cold(told["colds"][name], size)
            for tokenized in page_asked["tokenization"]:
                key = f"{name} {'with' if tokenized else 'without'} tokenization"
                timed = _NO_TIMES if entry["untimed"] else _timed(told["timed"], key, config)
                timed = {"tokenization": tokenized, **timed}
                found.append(_row(name, entry, [judged, started, timed], common, bundle, about))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        line = f"{type(error).__name__}: {error}"[:200]
        raise DeviceError(f"browser: the page's figures are not whole ({line}); bench again") from None
    return found


def _judged(entry: dict[str, Any], labels: list[int] | None, bundle: Bundle) -> dict[str, Any]:
    golden = bundle.golden()
    model, inputs = reference(bundle), inputs_of(golden)
    outputs = list(np.asarray(entry["golden"], np.float32))
    metric, notes = None, ["accuracy: the texts have no labels"]
    if labels is not None:
        told = list(np.asarray(entry["labelled"], np.float32))
        metric, notes = model.metric([""] * len(told), told, labels), []
    return {
        "metric": metric,
        "parity": quality.parity(model, inputs, outputs, outputs_of(golden)),
        "notes": notes,
    }


def _untimed(gpu: dict[str, Any]) -> dict[str, Any]:
    name = " ".join(filter(None, (gpu.get(key) for key in ("vendor", "architecture", "description"))))
    note = f"WebGPU here is software ({name}): times and memory are not reported"
    return {"cold_start_ms": None, "peak_rss_mb": None, "notes": [note]}


def _cold(starts: list[dict[str, Any]], size: int) -> dict[str, Any]:
    notes = ["cold start: a page load of its own, files from this machine, nothing cached"]
    told = [one["memory_bytes"] for one in starts]
    memory = None if None in told else float(median(told))
    if memory is None:
        notes.append(f"memory: {next(one['memory_note'] for one in starts if one['memory_bytes'] is None)}")
    elif memory < size + LEAST_ENGINE_BYTES:
        notes.append(f"memory: the browser told {memory / MB:.1f} MB, which leaves the engine's own out")
        memory = None
    else:
        notes.append("memory: what the browser tells of the page and its worker after the answers, not RSS")
    return {
        "cold_start_ms": float(median(one["ms"] for one in starts)),
        "peak_rss_mb": None if memory is None else memory / MB,
        "notes": notes,
    }


def _timed(timed: dict[str, Any], key: str, config: BenchConfig) -> dict[str, Any]:
    samples, times = np.asarray(timed["samples"][key], np.float64), int(timed["batch"][key])
    notes = []
    if config.quick:
        notes.append(f"quick: {len(samples)} rounds, so bench without --quick for figures to quote")
    if len(samples) < 100:
        notes.append(f"p99: from {len(samples)} rounds only, so close to the slowest one")
    if times > 1:
        step = timed["clock_step_ms"]
        notes.append(
            f"clock: its step is {step:.3g} ms, so each sample is the mean of {times} calls in a row, "
            "and percentiles are of those means"
        )
    return {
        "n": len(samples),
        "seconds": float(samples.sum() * times / 1e3),
        "latency_ms": statistics.summarise(samples, config.seed),
        "outliers": statistics.outliers(samples),
        "overhead_ms": float(np.median(timed["samples"][HARNESS])),
        "notes": notes,
    }


def _row(
    name: str,
    entry: dict[str, Any],
    parts: list[dict[str, Any]],
    common: dict[str, Any],
    bundle: Bundle,
    about: dict[str, Any],
) -> dict[str, Any]:
    told = entry["about"]
    keys = ("variant", "engine", "engine_version", "threads", "precision", "providers")
    values = {**common, **{key: told[key] for key in keys}}
    for part in parts:
        values |= part
    size = bundle.variants[told["variant"]]["size_bytes"]
    values |= {
        "bundle": bundle.name,
        "entry": name,
        "default": None,
        "size_bytes": size,
        "versions": {told["engine"]: told["engine_version"], "browser": about["browser"]},
        "note": "; ".join([*(note for part in reversed(parts) for note in part["notes"]), ENERGY]),
    }
    return {key: values.get(key) for key in (*KEYS, *EXTRA_KEYS)}
