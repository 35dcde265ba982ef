"""A bundle on a device: push what is needed, run it there, bring back rows or answers."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from device_bench.bench import BenchConfig
from device_bench.devices import Device
from device_bench.quality import plain
from device_bench.rows import check_row
from runtimes.bundle import MANIFEST, Bundle, manifest_digest
from runtimes.errors import DeviceError, EngineError
from runtimes.load import choose

FOLDER = "bundle"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def bench_on(
    device: Device,
    bundle: Bundle,
    variants: Sequence[str] | None,
    texts: Sequence[Any],
    labels: Sequence[Any] | None,
    config: BenchConfig,
    profile: str | None = None,
) -> list[dict[str, Any]]:
    """Measures variants (None: all that the device has an engine for) there; bench rows as ever.

    `profile` names the limits that the device was opened with, if it was.

    Raises DeviceError where the device goes away, EngineError where it lacks the engine.
    """
    names = _carry(device, bundle, variants)
    request = {
        "do": "bench",
        "bundle": device.path(FOLDER),
        "variants": names,
        "texts": plain(texts),
        "labels": None if labels is None else plain(labels),
        "config": asdict(config),
        "profile": profile,
    }
    rows = device.run(request, say).get("rows")
    if not isinstance(rows, list) or not rows:
        raise DeviceError(f"{device.name}: it gave no rows; try again")
    for number, row in enumerate(rows, 1):
        check_row(row, f"{device.name}: row {number}")
    default = bundle.defaults.get("*")
    return [{**row, "default": row["variant"] == default} for row in rows]


def answers_on(
    device: Device, bundle: Bundle, variants: Sequence[str] | None, texts: Sequence[Any], threads: int = 1
) -> dict[str, dict[str, Any]]:
    """Variant → {"ids": token ids a row, "outputs": numbers a row, engine, engine_version, …} there."""
    names = _carry(device, bundle, variants)
    request = {"do": "answers", "bundle": device.path(FOLDER), "variants": names, "texts": plain(texts)}
    found = device.run({**request, "threads": threads}, say).get("variants")
    if not isinstance(found, dict) or not found or not set(found) <= set(names):
        raise DeviceError(f"{device.name}: it gave no answers of {', '.join(names)}; try again")
    return found


def ask_on(device: Device, bundle: Bundle, questions: Sequence[str], threads: int = 1) -> dict[str, Any]:
    """What a collection answers there: {"golden": one a question, "peak_rss_mb", "about", …}.

    Raises EngineError where the device has no engine for one of its models.
    """
    parts = [bundle.part(role) for role in bundle.parts]
    needed = sorted({part.variants[part.defaults["*"]]["engine"] for part in parts})
    missing = set(needed) - set(device.provide(needed, say))
    if missing:
        raise EngineError(f"{device.name}: no engine {missing.pop()!r} there, and none can be pushed")
    say(f"{device.name}: pushing {bundle.name}")
    files = {f"{FOLDER}/{name}": bundle.source(name) for name in bundle.manifest["files"]}
    device.push({**files, f"{FOLDER}/{MANIFEST}": json.dumps(bundle.manifest).encode()})
    request = {"do": "ask", "bundle": device.path(FOLDER), "questions": list(questions), "threads": threads}
    found = device.run(request, say)
    if not isinstance(found.get("golden"), list):
        raise DeviceError(f"{device.name}: it gave no answers; try again")
    return found


def compare_on(
    device: Device,
    entries: Mapping[str, tuple[Bundle, str]],
    texts: Sequence[Any],
    rounds: int,
    seconds: float,
) -> dict[str, dict[str, Any]]:
    """`device_bench.compare.compare` of (bundle, variant) by name, there.

    Raises DeviceError where the device is emulated: its times say nothing.
    """
    if device.describe()["emulated"]:
        raise DeviceError(f"{device.name}: emulated, so its times say nothing; name a real device")
    asked = {}
    for number, (name, (bundle, variant)) in enumerate(entries.items()):
        _carry(device, bundle, [variant], f"{FOLDER}-{number}")
        asked[name] = (device.path(f"{FOLDER}-{number}"), variant)
    request = {"do": "compare", "entries": asked, "texts": plain(texts)}
    return dict(device.run({**request, "rounds": rounds, "seconds": seconds}, say)["found"])


def _carry(device: Device, bundle: Bundle, variants: Sequence[str] | None, folder: str = FOLDER) -> list[str]:
    """Push the bundle, cut down to the variants that run there; their names."""
    wanted = [choose(bundle, variant=name) for name in variants] if variants else list(bundle.variants)
    engines = list(dict.fromkeys(bundle.variants[name]["engine"] for name in wanted))
    has = device.provide(engines, say)
    names = [name for name in wanted if bundle.variants[name]["engine"] in has]
    left = [name for name in wanted if name not in names]
    if left and (variants or not names):
        engine = bundle.variants[left[0]]["engine"]
        raise EngineError(
            f"{device.name}: no engine {engine!r} for {', '.join(left)} there, and none can be pushed; "
            "name variants of another engine"
        )
    if left:
        say(f"{device.name}: left out, no engine there: {', '.join(left)}")
    if not variants:
        names = _without_misread(device, bundle, names)
    say(f"{device.name}: pushing {', '.join(names)}")
    device.push(part_of(bundle, names, folder))
    return names


def _without_misread(device: Device, bundle: Bundle, names: list[str]) -> list[str]:
    """tflite-runtime refuses most quantized variants (see `runtimes.engines.litert`); fp32 serves there."""
    if not str(device.describe()["engines"].get("litert", "")).startswith("tflite-runtime"):
        return names
    about = bundle.variants
    kept = [n for n in names if about[n]["engine"] != "litert" or about[n]["precision"] == "fp32"]
    if kept and kept != names:
        left = ", ".join(name for name in names if name not in kept)
        say(f"{device.name}: left out, tflite-runtime there misreads it: {left}")
    return kept or names


def part_of(bundle: Bundle, names: Sequence[str], folder: str = FOLDER) -> dict[str, Path | bytes]:
    """The files of a bundle with these variants alone, under a folder, its manifest sealed anew."""
    folders = {Path(bundle.variants[name]["file"]).parent.as_posix() for name in names}
    files = {
        name: about
        for name, about in bundle.manifest["files"].items()
        if not name.startswith(("variants/", "bench/")) or Path(name).parent.as_posix() in folders
    }
    defaults = {engine: name for engine, name in bundle.defaults.items() if name in names}
    manifest = {
        **bundle.manifest,
        "variants": {name: bundle.variants[name] for name in names},
        "defaults": {"*": names[0], **defaults},
        "files": files,
    }
    manifest["sha256"] = manifest_digest(manifest)
    pushed: dict[str, Path | bytes] = {f"{folder}/{name}": bundle.source(name) for name in files}
    return {**pushed, f"{folder}/{MANIFEST}": json.dumps(manifest).encode()}
