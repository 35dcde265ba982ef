"""What a build has shown, as a table for the terminal."""

import json
from pathlib import Path
from typing import Any

from device_bench.rows import open_rows
from trainers.checkpoint import open_checkpoint

_HEAD = ("model", "accuracy", "n", "p50 ms", "times as fast", "file MB")


def summary(paths: dict[str, Path]) -> str:
    """Baselines, checkpoints and variants: accuracy, p50 with tokenization, ratio to the teacher, size."""
    return _aligned([*_baselines(paths["baselines"]), *_rows(open_rows(paths["bench"]))])


def table(rows: list[dict[str, Any]]) -> str:
    """The bench rows alone, with tokenization."""
    return _aligned(_rows(rows))


def _aligned(lines: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in [_HEAD, *lines]) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [_HEAD, *lines]
    )


def results(paths: dict[str, Path]) -> dict[str, Any]:
    """The same for machines: test metrics of checkpoints and baselines, and the bench rows."""
    checkpoints = {
        name: open_checkpoint(paths[name]).meta["metrics"]["test"]
        for name in ("teacher", "pruned", "student", "qat")
        if name in paths
    }
    baselines = json.loads(paths["baselines"].read_bytes())
    return {"checkpoints": checkpoints, "baselines": baselines, "rows": open_rows(paths["bench"])}


def _baselines(path: Path) -> list[tuple[str, ...]]:
    found = json.loads(path.read_bytes())
    return [
        (name, f"{metrics['accuracy']:.4f}", str(metrics["n"]), "", "", "")
        for name, metrics in sorted(found.items(), key=lambda item: item[1]["accuracy"])
    ]


def _rows(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if not row["tokenization"]:
            continue
        metric, ratio, latency = row["metric"], row.get("ratio_to"), row["latency_ms"]
        lines.append(
            (
                row["entry"],
                f"{metric['value']:.4f}" if metric else "",
                str(metric["n"]) if metric else "",
                f"{latency['p50']:.2f}" if latency else "",
                f"{ratio['speed']:.1f}" if ratio else "",
                f"{row['size_bytes'] / 1e6:.1f}",
            )
        )
    return lines
