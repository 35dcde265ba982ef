"""The compression ladder over several seeds: `python -m apps.edge.benchmark 0 1 2`.

Builds every rung (what is there is reused), times all of them in one interleaved run a seed beside what a
user would take instead, and prints the tables of docs/compression.md. `--plot FILE.png` draws them.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from apps.edge import rivals
from apps.edge.rungs import rungs
from apps.edge.tables import claims, formats, ladder, pruning
from apps.flow import build, digest, plan
from device_bench import machine, measure, statistics
from device_bench.bench import _progress
from runtimes.load import load
from trainers.checkpoint import open_checkpoint
from trainers.data import open_data
from trainers.files import write_json

ROUNDS = 256
Timed = tuple[Callable[[str], object], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--built", action="store_true", help="Take the rungs that are built, build none.")
    options = parser.parse_args()
    found = {seed: measured(seed, options.runs, options.built) for seed in options.seeds}
    print(json.dumps(next(iter(found.values()))["device"]))
    for table in (ladder, formats, pruning, claims):
        print(f"\n{table(found)}")
    if options.plot is not None:
        from apps.edge.plot import draw

        draw(found, options.plot)


def measured(seed: int, runs: Path, built_only: bool = False) -> dict[str, Any]:
    """All entries of one seed: accuracy, size and times; kept beside the runs and reused."""
    wanted = rungs(seed)
    if built_only:
        wanted = {name: one for name, one in wanted.items() if plan(one, runs, "packed")[-1].done}
    built = {name: build(recipe, runs, until="packed") for name, recipe in wanted.items()}
    parts = {name: paths["packed"].name for name, paths in built.items()}
    file = runs / "ag-news" / f"ladder-{digest([seed, parts, ROUNDS])}.json"
    if not file.is_file():
        write_json(file, _measure(seed, built, runs / "ag-news"))
    return dict(json.loads(file.read_bytes()))


def _measure(seed: int, built: dict[str, dict[str, Path]], root: Path) -> dict[str, Any]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    first = next(iter(built.values()))
    test, teacher = open_data(first["data"]).splits["test"], first["teacher"]
    timed: dict[str, Timed] = {
        rivals.BERT: rivals.bert_base(teacher, root),
        rivals.TEACHER: _teacher(teacher),
        rivals.OPTIMUM: rivals.optimum_int8(teacher, root, test.texts, test.labels),
    }
    for rung, paths in built.items():
        timed |= _variants(rung, paths["packed"])
    if "student" in built:
        student = built["student"]["student"]
        timed[rivals.OPTIMUM_STUDENT] = rivals.optimum_int8(student, root, test.texts, test.labels)
    order = np.random.default_rng(seed).permutation(len(test.texts))[:ROUNDS]
    texts = [test.texts[row] for row in order]
    calls = {name: (lambda row, call=call: call(texts[row])) for name, (call, _) in timed.items()}
    with _progress("bench: rounds", ROUNDS) as step:
        taken = measure.interleave(calls, len(texts), ROUNDS, 3600.0, seed=seed, progress=step)
    entries = {name: {**about, **_times(taken, name, seed)} for name, (_, about) in timed.items()}
    return {"seed": seed, "device": machine.describe(), "cpu_share": taken.cpu_share, "entries": entries}


def _teacher(path: Path) -> Timed:
    model, figures = load(path, threads=1), open_checkpoint(path).meta["metrics"]["test"]
    about = {"accuracy": figures["accuracy"], "n": figures["n"], "bytes": rivals.weights(path)}
    return model, {**about, "rung": "teacher", "tokenizer_bytes": (path / "tokenizer.json").stat().st_size}


def _variants(rung: str, packed: Path) -> dict[str, Timed]:
    """Every variant of a rung's bundle, with its accuracy on the whole test split as the gate measured it."""
    parity = json.loads((packed / "parity.json").read_bytes())["variants"]
    manifest = json.loads((packed / "bundle.json").read_bytes())
    found: dict[str, Timed] = {}
    for name, figures in parity.items():
        about = {
            "rung": rung,
            "variant": name,
            "accuracy": figures["sample"]["metric"]["variant"],
            "n": figures["sample"]["n"],
            "bytes": manifest["variants"][name]["size_bytes"],
            "tokenizer_bytes": (packed / "tokenizer.json").stat().st_size,
        }
        found[f"{rung}, {name}"] = load(packed, variant=name, threads=1), about
    return found


def _times(taken: measure.Timings, name: str, seed: int) -> dict[str, Any]:
    """Median, its interval, and how many times as fast as each of the rivals, with 95% intervals."""
    samples = taken.ns[name] / 1e6
    times = {
        rival: statistics.ratio_of_medians(taken.ns[rival] / 1e6, samples, seed)
        for rival in (rivals.BERT, rivals.TEACHER, rivals.OPTIMUM)
    }
    return {"latency_ms": statistics.summarise(samples, seed), "times": times, "rounds": len(samples)}


if __name__ == "__main__":
    main()
