"""How fast bundles are on the target: all of them in one interleaved run, in a process of its own."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.child import in_child
from runtimes.errors import DeviceError

ROUNDS, SECONDS, MOST_TEXTS = 400, 30.0, 400


def measure(bundles: Mapping[str, tuple[Path, str]], texts: Sequence[str], on: str) -> dict[str, Any]:
    """Name → (bundle, variant) measured on `on`: {name: {"p50_ms", "speed", "ci95"}}.

    Batch 1, one thread, tokenization included, `texts` at their natural lengths. `speed` is how many times as
    fast as the first of `bundles`, by whole rounds, with its 95% interval. Raises DeviceError for a target
    other than "local", InputError with the child's last line where an engine crashes.
    """
    if on != "local":
        raise DeviceError(f"--on {on}: only local, this machine, can be measured by a search; leave --on out")
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        file = Path(folder) / "texts.json"
        step = max(1, len(texts) // MOST_TEXTS)
        file.write_text(json.dumps(list(texts[::step][:MOST_TEXTS])))
        named = {name: [str(path.resolve()), variant] for name, (path, variant) in bundles.items()}
        measured: dict[str, Any] = in_child(time_here, bundles=named, texts=str(file))
    return measured


def time_here(bundles: dict[str, list[str]], texts: str) -> dict[str, Any]:
    """The local side of `measure`; runs through `in_child`."""
    import numpy as np

    from device_bench.measure import interleave
    from device_bench.statistics import ratio_of_medians
    from runtimes.load import load

    asked: list[str] = json.loads(Path(texts).read_bytes())
    calls = {}
    for name, (path, variant) in bundles.items():
        model = load(path, variant=variant, threads=1)
        calls[name] = lambda position, model=model: model(asked[position])
    samples = interleave(calls, len(asked), ROUNDS, SECONDS).ns
    first = samples[next(iter(bundles))]
    found = {}
    for name, ns in samples.items():
        speed, low, high = ratio_of_medians(first, ns)
        p50 = float(np.median(ns)) / 1e6
        found[name] = {"p50_ms": p50, "speed": speed, "ci95": [low, high], "n": len(ns)}
    return found
