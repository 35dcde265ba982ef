"""What a detector takes on a small device: file, arena, time for a point, points a second, memory over time.

    python -m apps.monitor.footprint BUNDLE [--points 10000000]

One thread. Latency: all variants interleaved on the golden windows. Points a second and memory: `edgewise run
BUNDLE --stream` in a process of its own, fed one channel as CSV lines through a pipe as fast as it reads.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from compress.child import in_child
from device_bench.child import rss_mb
from device_bench.measure import interleave
from export.arena import about_arena
from export.micro import installed, run_micro
from export.windows import border_of
from runtimes.bundle import Bundle, open_bundle
from runtimes.errors import InputError
from runtimes.golden import inputs_of
from runtimes.load import load

ROUNDS = 2_000
BLOCK = 20_000  # points written to the pipe at once
SAMPLES = 10  # of the memory, over the run
SMALL = "tflite-full_int8"


def latencies(bundle: Bundle) -> list[dict[str, Any]]:
    """Variant, size in bytes, p50 in µs of a window and of a point."""
    models = {name: load(bundle.path, variant=name, threads=1) for name in bundle.variants}
    windows = [next(iter(models.values())).prepare([one]) for one in inputs_of(bundle.golden())]
    calls = {name: (lambda row, model=model: model.run(windows[row])) for name, model in models.items()}
    taken = interleave(calls, len(windows), ROUNDS, 60.0)
    patch = bundle.limits["patch"]
    rows = []
    for name in models:
        window = float(np.median(taken.ns[name])) / 1e3
        size = bundle.variants[name]["size_bytes"]
        rows.append({"variant": name, "bytes": size, "window_us": window, "point_us": window / patch})
    return rows


def arena(bundle: Bundle) -> dict[str, Any]:
    """What `export.arena` tells of the all-integer variant. Raises InputError where there is none."""
    if SMALL not in bundle.variants:
        raise InputError(f"{bundle.path}: no {SMALL} in it; name it in the recipe's export.variants")
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        model = Path(folder) / "model.tflite"
        model.write_bytes(bundle.read(bundle.variants[SMALL]["file"]))
        told: dict[str, Any] = in_child(about_arena, model=str(model))
        if installed():
            told["micro"] = _micro(bundle, model)
    return told


def _micro(bundle: Bundle, model: Path) -> dict[str, Any]:
    """Arena in bytes as TFLite Micro takes it; how far its answers lie from LiteRT's, in int8 steps."""
    windows, places = inputs_of(bundle.golden()), [model.with_name(name) for name in ("in.npy", "out.npy")]
    np.save(places[0], np.stack(windows))
    told: dict[str, Any] = in_child(
        run_micro, model=str(model), inputs_at=str(places[0]), outputs_at=str(places[1])
    )
    border = in_child(border_of, model=str(model))
    wanted = np.stack(load(bundle.path, variant=SMALL, threads=1).outputs(windows))
    off = np.rint(np.abs(np.load(places[1]) - wanted) / np.float32(border["output"][0]))
    return {**told, "same": float((off == 0).mean()), "most_steps": int(off.max())}


def streamed(path: Path, variant: str, points: int) -> dict[str, Any]:
    """Points a second through the command line, and its resident memory in MB over the run."""
    command = [sys.executable, "-m", "apps.cli", "run", str(path), "--stream", "--variant", variant, "--json"]
    random, rows = np.random.default_rng(0), []
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL)
        assert child.stdin is not None
        status, start, sent = Path(f"/proc/{child.pid}/status"), time.perf_counter(), 0
        child.stdin.write(b"time,value\n")
        while sent < points:
            count = min(BLOCK, points - sent)
            child.stdin.write(_lines(sent, count, random))
            sent += count
            if sent * SAMPLES // points > (sent - count) * SAMPLES // points:
                rows.append({"points": sent, "rss_mb": rss_mb(status)})
                out.truncate(0)  # the scores are not needed; the disk is
        child.stdin.close()
        code = child.wait()
        seconds = time.perf_counter() - start
        if code:
            raise InputError(f"{path}: the stream ended with code {code}; run it by hand to see why")
    return {"points": points, "seconds": seconds, "points_a_second": points / seconds, "memory": rows}


def _lines(first: int, count: int, random: np.random.Generator) -> bytes:
    """A daily wave of a point a minute with noise, as CSV."""
    places = np.arange(first, first + count)
    values = 10 + 3 * np.sin(2 * np.pi * places / 1440) + random.normal(0, 0.3, count)
    rows = zip((60 * places).tolist(), values.tolist(), strict=True)  # from 1970 on: none is ahead
    return "".join(f"{when},{value:.4f}\n" for when, value in rows).encode()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m apps.monitor.footprint")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    bundle = open_bundle(given.bundle)
    told: dict[str, Any] = {"latency": latencies(bundle), "small": arena(bundle)}
    told["stream"] = streamed(given.bundle, SMALL, given.points)
    if given.json:
        print(json.dumps(told, indent=1))
        return
    for row in told["latency"]:
        print(
            f"{row['variant']:<26} {row['bytes'] / 1e3:8.1f} KB  {row['window_us']:8.1f} µs a window  "
            f"{row['point_us']:7.2f} µs a point"
        )
    small = told["small"]
    print(f"\narena {small['arena']} bytes for {small['tensors']} tensors (no less than {small['least']})")
    print("operators " + ", ".join(f"{name} {count}" for name, count in small["operators"].items()))
    if "micro" in small:
        micro = small["micro"]
        print(
            f"TFLite Micro here takes {micro['total']} bytes: {micro['head']} for tensors and scratch, "
            f"{micro['tail']} for its structures; {micro['same']:.1%} of its int8 answers are LiteRT's, "
            f"the others at most {micro['most_steps']} steps off"
        )
    stream = told["stream"]
    rate = f"{stream['points_a_second']:,.0f} a second"
    print(f"\n{stream['points']:,} points in {stream['seconds']:.1f} s: {rate}")
    for row in stream["memory"]:
        print(f"{row['points']:>12,} points  {row['rss_mb']:7.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
