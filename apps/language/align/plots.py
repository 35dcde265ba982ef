"""The comparison's pictures as inline SVG, readable at phone width, in the page's own colours."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apps.analysis_plot import BLUE, GREEN, INK, LINE, ORANGE, PURPLE, RED, SOFT, VARIABLES, WIDTH
from apps.language.align.results import BEAT, NAMES, Found
from apps.language.align.tables import change

COLOURS = {
    "base": SOFT,
    "before": SOFT,
    "sft": PURPLE,
    "chosen": RED,
    "ppo": BLUE,
    "dpo": ORANGE,
    "orpo": GREEN,
}
MARKS = {"base": "x", "before": "+", "sft": "v", "chosen": "^", "ppo": "o", "dpo": "s", "orpo": "D"}
_STYLE: Any = {"font.size": 11, "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": SOFT,
          "xtick.color": SOFT, "ytick.color": INK, "axes.edgecolor": LINE, "xtick.labelsize": 10}  # fmt: skip


def _svg(draw: Callable[[Axes], None], height: float, grid: str = "both") -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(axis=grid, color=LINE, linewidth=0.8)  # type: ignore[arg-type]
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def win_rates(rows: list[dict[str, Any]]) -> str:
    """Each method's win rate over SFT with its interval, its seeds as small points, and at equal length."""
    shown = [row for row in rows if row["wins"]["judge"]]

    def draw(axes: Axes) -> None:
        for place, row in enumerate(shown):
            won, colour = row["wins"]["judge"], COLOURS[row["method"]]
            _bar(axes, place - 0.12, won.rate, colour, MARKS[row["method"]], 1.0)
            _bar(axes, place + 0.2, won.at_equal_length, colour, "|", 0.55)
            axes.plot([100 * s for s in won.by_seed], [place - 0.3] * len(won.by_seed), ".", color=colour,
                      markersize=4, alpha=0.7)  # fmt: skip
        axes.axvline(50, color=SOFT, linewidth=1)
        axes.axvline(100 * BEAT, color=SOFT, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(shown)), [row["name"] for row in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("wins over SFT, % (pale: at equal length)")

    return _svg(draw, 1.1 + 0.5 * len(shown), "x")


def _bar(axes: Axes, place: float, value: Any, colour: str, mark: str, strength: float) -> None:
    axes.plot([100 * value.low, 100 * value.high], [place] * 2, color=colour, linewidth=1.8, alpha=strength)
    axes.plot(100 * value.value, place, mark, color=colour, markersize=7, alpha=strength)


def frontier(found: Found) -> str:
    """Held-out reward against the KL to the start: what each run pays for what it gets."""

    def draw(axes: Axes) -> None:
        for method, colour in COLOURS.items():
            name = "start" if method == "before" else method
            own = [r for r in found.runs.values() if r["kind"] == "model" and r["method"] == name]
            for i, run in enumerate(sorted(own, key=lambda r: bool(r["changed"]))):
                axes.plot(run["kl"]["per_answer"], np.mean(run["scores"]["reward"]), MARKS[method],
                          color=colour, markersize=7, linestyle="none",
                          alpha=0.35 if run["changed"] else 1.0,
                          label=NAMES[method] if not i else None)  # fmt: skip
        axes.set_xlabel("KL to the start, nats per answer")
        axes.set_ylabel("held-out reward")
        axes.set_xscale("symlog", linthresh=1)
        _legend(axes)

    return _svg(draw, 3.4)


def curves(found: Found) -> str:
    """Reward on watched prompts over the tokens of training, a line for each seed."""

    def draw(axes: Axes) -> None:
        for method in ("sft", "chosen", "ppo", "dpo", "orpo"):
            for i, run in enumerate(found.of(method)):
                points = run["training"].get("watched")
                if points:
                    axes.plot([p["tokens"] / 1e3 for p in points], [p["reward"] for p in points],
                              color=COLOURS[method], marker=MARKS[method], markersize=4, linewidth=1.3,
                              label=NAMES[method] if not i else None)  # fmt: skip
        axes.set_xlabel("thousand tokens of this method's training")
        axes.set_ylabel("reward, watched prompts")
        _legend(axes)

    return _svg(draw, 3.2)


def losses(found: Found, method: str) -> str:
    """A method's own training loss, a line for each seed."""

    def draw(axes: Axes) -> None:
        for run in found.of(method):
            points = [p for p in run["training"].get("curve", []) if "loss" in p]
            axes.plot([p["tokens"] / 1e3 for p in points], [p["loss"] for p in points],
                      color=COLOURS[method], linewidth=1.1, alpha=0.8)  # fmt: skip
        axes.set_xlabel("thousand tokens")
        axes.set_ylabel(f"{NAMES[method]} loss")

    return _svg(draw, 2.1)


def memory(rows: list[dict[str, Any]]) -> str:
    """Peak memory of each method's training."""
    shown = [row for row in rows if row["method"] != "before" and row["peak_memory_mb"]]

    def draw(axes: Axes) -> None:
        for place, row in enumerate(shown):
            axes.barh(place, row["peak_memory_mb"], 0.6, color=COLOURS[row["method"]])
            axes.annotate(f"{row['peak_memory_mb']:,.0f}", (row["peak_memory_mb"], place), (3, 0),
                          textcoords="offset points", va="center", color=INK, fontsize=10)  # fmt: skip
        axes.set_yticks(range(len(shown)), [row["name"] for row in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1.18 * max((row["peak_memory_mb"] for row in shown), default=1))
        axes.set_xlabel("peak memory in training, MB")

    return _svg(draw, 0.9 + 0.36 * len(shown), "x")


def changes(rows: list[dict[str, Any]]) -> str:
    """Win rates with one setting changed."""
    shown = [row for row in rows if row["wins"]]

    def draw(axes: Axes) -> None:
        for place, row in enumerate(shown):
            pale = 1.0 if not row["changed"] else 0.75
            _bar(axes, place, row["wins"].rate, COLOURS[row["method"]], MARKS[row["method"]], pale)
        names = [f"{row['name']}, {change(row['changed'])}" for row in shown]
        axes.set_yticks(range(len(shown)), names, fontsize=9)
        axes.axvline(50, color=SOFT, linewidth=1)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel("wins over SFT, % (one seed)")

    return _svg(draw, 1.0 + 0.28 * len(shown), "x")


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, frameon=False, fontsize=9, ncols=3, loc="lower center",
                    bbox_to_anchor=(0.45, 1.0), handletextpad=0.4, columnspacing=1.0)  # fmt: skip
