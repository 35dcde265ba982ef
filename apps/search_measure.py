"""How fast bundles are on the target: all of them in one interleaved run, in a process of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device_bench.devices import reach
from device_bench.remote import compare_on, say
from runtimes import engines
from runtimes.bundle import ENGINES, open_bundle
from runtimes.errors import DeviceError

ROUNDS, SECONDS, MOST_TEXTS = 400, 30.0, 400


def measure(bundles: Mapping[str, tuple[Path, str]], texts: Sequence[str], on: str) -> dict[str, Any]:
    """Name → (bundle, variant) measured on the device `on`: {name: {"p50_ms", "speed", "ci95", "n"}}.

    Batch 1, one thread, tokenization included, `texts` at their natural lengths. `speed` is how many times as
    fast as the first of `bundles`, by whole rounds, with its 95% interval. Raises DeviceError for a device
    that cannot be reached, or is emulated, EngineError where an engine crashes or is missing there.
    """
    step = max(1, len(texts) // MOST_TEXTS)
    opened = {name: (open_bundle(path), variant) for name, (path, variant) in bundles.items()}
    with reach(on) as device:
        return compare_on(device, opened, list(texts[::step][:MOST_TEXTS]), ROUNDS, SECONDS)


def engines_on(on: str) -> list[str]:
    """The engines that run on a device. Raises DeviceError where it cannot be reached or is emulated."""
    if on == "local":
        return [name for name in ENGINES if engines.installed(name)]
    with reach(on) as device:
        if device.describe()["emulated"]:
            raise DeviceError(f"{on}: emulated, so its times say nothing; name a real device")
        return device.provide(["onnx", "litert"], say)
