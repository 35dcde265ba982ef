"""What a build has shown, as a table for the terminal."""

import json
from pathlib import Path
from typing import Any

from apps.steps import named
from device_bench.figures import metric_name
from device_bench.rows import open_rows
from trainers.checkpoint import open_checkpoint

_HEAD = ("model", "", "n", "p50 ms", "same label", "times as fast", "file MB")


def summary(paths: dict[str, Path]) -> str:
    """Baselines, checkpoints and variants: accuracy, p50 with tokenization, ratio to the teacher, size."""
    rows = open_rows(paths["bench"])
    return _aligned([*_baselines(paths["baselines"]), *_rows(rows)], _head(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The bench rows alone, with tokenization; a column for the device where there are several."""
    several = len({_device(row) for row in rows}) > 1
    lines = _rows(rows)
    if several:
        names = [_device(row) for row in rows if row["tokenization"]]
        head = ("device", *_head(rows))
        return _aligned([(name, *line) for name, line in zip(names, lines, strict=True)], head)
    return _aligned(lines, _head(rows))


def _head(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    return _HEAD[0], metric_name(rows), *_HEAD[2:]


def notes(rows: list[dict[str, Any]]) -> str:
    """What a reader of the table must know: each remark once, with whom it concerns where that is not all."""
    said: dict[str, list[str]] = {}
    several = len({_device(row) for row in rows}) > 1
    for row in rows:
        name = f"{_device(row)} {row['entry']}" if several else str(row["entry"])
        name += "" if row["tokenization"] else ", tokens ready"
        for remark in filter(None, str(row["note"] or "").split("; ")):
            if not remark.startswith("energy: see"):
                said.setdefault(remark, []).append(name)
    return "\n".join(
        f"- {remark}" + ("" if len(names) == len(rows) else f" ({'; '.join(names)})")
        for remark, names in said.items()
    )


def _device(row: dict[str, Any]) -> str:
    marks = [row["simulated_profile"], "emulated" if row["emulated"] else None]
    return " ".join([row["device"]["name"], *(f"({mark})" for mark in marks if mark)])


def _aligned(lines: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    table = [head, *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    words = len(head) - len(_HEAD) + 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
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
        (name, f"{metrics[named(metrics)]:.4f}", str(metrics["n"]), "", "", "", "")
        for name, metrics in sorted(found.items(), key=lambda item: float(item[1][named(item[1])]))
    ]


def _rows(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if not row["tokenization"]:
            continue
        metric, ratio = row["metric"], row.get("ratio_to")
        digits = 3 if (row.get("sample") or {}).get("unit") == "points" else 1  # a detector is small and fast
        lines.append(
            (
                row["entry"],
                f"{metric['value']:.4f}" if metric else "",
                str(metric["n"]) if metric else "",
                f"{row['latency_ms']['p50']:.{digits + 1}f}" if row["latency_ms"] else "not told",
                f"{row['parity']['agreement']:.1%}" if row["parity"] else "",
                f"{ratio['speed']:.1f}" if ratio else "",
                f"{row['size_bytes'] / 1e6:.{digits}f}",
            )
        )
    return lines
