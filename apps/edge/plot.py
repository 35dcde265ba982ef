"""The ladder as a picture: accuracy against median latency, the area of a bubble for the size."""

from pathlib import Path
from statistics import mean
from typing import Any

from apps.edge.tables import names_of

_LEFT_OUT = ("quantized otherwise",)  # nine formats of one model, of which a table tells more
_COLOURS = {
    "teacher": "#5b6472", "Optimum": "#b4532a", "quantized only": "#2a6fb4", "vocabulary": "#5aa0d8",
    "pruned to 75%": "#9fc7a4", "pruned to 50%": "#55a868", "pruned to 25%": "#2c7a43", "student": "#7b4fa3",
}  # fmt: skip


def draw(found: dict[int, dict[str, Any]], out: Path) -> None:
    """A PNG: one bubble an entry (mean over the seeds), the quickest variant of each rung in the legend."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = [point for point in _points(found) if point["rung"] not in _LEFT_OUT]
    best = _labelled(points)
    figure, axes = plt.subplots(figsize=(9.5, 5.4), dpi=150)
    for point in sorted(points, key=lambda point: -point["mb"]):
        colour = _COLOURS.get(point["rung"], "#d08a2e")
        axes.scatter(point["ms"], 100 * point["accuracy"], s=12 + 14 * point["mb"], c=colour, alpha=0.6)
    for point in sorted(best, key=lambda point: -point["ms"]):
        few = "" if point["seeds"] == len(found) else f" ({point['seeds']} of {len(found)} seeds)"
        told = f"{point['rung']}{few}: {point['ms']:.2g} ms, {point['mb']:.1f} MB"
        colour = _COLOURS.get(point["rung"], "#d08a2e")
        axes.scatter([], [], s=60, c=colour, alpha=0.8, label=told)
    axes.legend(title="quickest of each", loc="lower right", fontsize=8, title_fontsize=8, framealpha=0.9)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], labels=["0.5", "1", "2", "5", "10", "20"], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("median latency, ms (batch 1, one thread, tokenization included)")
    axes.set_ylabel("accuracy on 7,600 test rows, %")
    axes.set_title(
        "From the teacher to the student: the area is the size of the file", loc="left", fontsize=11
    )
    axes.grid(alpha=0.25)
    axes.margins(x=0.12, y=0.2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, metadata={"Software": None})
    plt.close(figure)


def _points(found: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    points = []
    for name, first in names_of(found).items():
        if first["accuracy"] is None:
            continue
        rows = [one["entries"][name] for one in found.values() if name in one["entries"]]
        points.append(
            {
                "rung": first["rung"],
                "seeds": len(rows),
                "ms": mean(row["latency_ms"]["p50"] for row in rows),
                "accuracy": mean(row["accuracy"] for row in rows),
                "mb": mean(row["bytes"] for row in rows) / 1e6,
            }
        )
    return points


def _labelled(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fastest of each rung."""
    best: dict[str, dict[str, Any]] = {}
    for point in points:
        if point["rung"] not in best or point["ms"] < best[point["rung"]]["ms"]:
            best[point["rung"]] = point
    return list(best.values())
