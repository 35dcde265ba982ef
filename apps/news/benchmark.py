"""The news benchmark over several seeds: `python -m apps.news.benchmark apps/news/ag_news.toml 0 1 2`.

Builds the recipe for each seed (what is there is reused) and prints the tables of docs/news.md.
"""

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from apps.flow import build
from apps.recipe import read_recipe
from device_bench.rows import open_rows
from runtimes.bundle import open_bundle

TEACHER = "teacher pytorch-fp32"


def main(recipe: Path, seeds: list[int], runs: Path = Path("runs")) -> None:
    built = {seed: build(read_recipe(recipe, {"seed": str(seed)}), runs) for seed in seeds}
    tables = {seed: _entries(open_rows(paths["bench"])) for seed, paths in built.items()}
    print(_models(tables, built))
    print()
    print(_claims(tables, built))


def _entries(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["entry"]: row for row in rows if row["tokenization"]}


def _models(tables: dict[int, dict[str, dict[str, Any]]], built: dict[int, dict[str, Path]]) -> str:
    """Mean over the seeds, with the range."""
    lines = [
        "| model | accuracy | p50 ms | times as fast as the teacher | MB |",
        "|---|---|---|---|---|",
    ]
    baselines = [json.loads(paths["baselines"].read_bytes()) for paths in built.values()]
    for name in baselines[0]:
        lines.append(f"| {name} | {_spread([one[name]['accuracy'] for one in baselines], 4)} | | | |")
    for name in next(iter(tables.values())):
        rows = [table[name] for table in tables.values()]
        cells = (
            name,
            _spread([row["metric"]["value"] for row in rows], 4),
            _spread([row["latency_ms"]["p50"] for row in rows], 2),
            _spread([row["ratio_to"]["speed"] for row in rows], 1),
            _spread([row["size_bytes"] / 1e6 for row in rows], 1),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float], digits: int) -> str:
    low, high = min(values), max(values)
    middle = f"{mean(values):.{digits}f}"
    return middle if high - low < 10**-digits else f"{middle} ({low:.{digits}f} to {high:.{digits}f})"


def _claims(tables: dict[int, dict[str, dict[str, Any]]], built: dict[int, dict[str, Path]]) -> str:
    """Per seed: the default variant against its own teacher and against TF-IDF on the same rows."""
    lines = [
        "| seed | default variant | lost to its teacher, points | over TF-IDF + LinearSVC, points "
        "| times as fast (95% interval) | variant + tokenizer, MB | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, table in tables.items():
        bundle = open_bundle(built[seed]["bundle"])
        row, teacher = table[bundle.defaults["*"]], table[TEACHER]
        classical = json.loads(built[seed]["baselines"].read_bytes())["TF-IDF + LinearSVC"]["accuracy"]
        accuracy, ratio = row["metric"]["value"], row["ratio_to"]
        lines.append(
            f"| {seed} | {row['entry']} | {100 * (teacher['metric']['value'] - accuracy):+.2f} "
            f"| {100 * (accuracy - classical):+.2f} "
            f"| {ratio['speed']:.1f} ({ratio['ci95'][0]:.1f} to {ratio['ci95'][1]:.1f}) "
            f"| {(row['size_bytes'] + row['tokenizer_bytes']) / 1e6:.1f} | {row['metric']['n']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
