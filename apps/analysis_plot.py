"""The analysis as pictures, readable at phone width: where the cost is, and what each part is worth."""

import io
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from device_bench.figures import number

matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: small, sharp, and found by a search
matplotlib.rcParams["svg.hashsalt"] = "edgewise"

# Each colour of a picture, and the page's own name for it, which has a dark twin.
INK, SOFT, LINE, CARD = "#15191e", "#56616d", "#dfe3e8", "#ffffff"
BLUE, ORANGE, PURPLE, GREEN, RED = "#0b63b0", "#b5470a", "#6d4aa0", "#08705e", "#a4262c"
VARIABLES = {
    INK: "--ink", SOFT: "--soft", LINE: "--line", CARD: "--card", BLUE: "--onnx", ORANGE: "--litert",
    PURPLE: "--torch", GREEN: "--other", RED: "--bad",
}  # fmt: skip
COLOURS = {"embedding": PURPLE, "attention": BLUE, "feed-forward": ORANGE, "head": GREEN}
CHANGES = {"int8": (GREEN, "o"), "int4": (BLUE, "s"), "cut": (RED, "D")}
WIDTH = 4.6  # inches: on a phone's 330 pixels, 11 point type comes out at 11 pixels
_STYLE: Any = {"font.size": 11, "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": SOFT,
          "xtick.color": SOFT, "ytick.color": INK, "axes.edgecolor": LINE, "xtick.labelsize": 10}  # fmt: skip


def cost_svg(result: dict[str, Any]) -> str:
    """Shares by kind, and the time of each part, as inline SVG."""
    return _svg(_figure([(_shares, 2.5), (_times, _tall(result, 0.28))], result))


def sensitivity_svg(result: dict[str, Any]) -> str:
    """Accuracy lost by each change, as inline SVG."""
    return _svg(_figure([(_drops, _tall(result, 0.46))], result))


def picture(result: dict[str, Any]) -> bytes:
    """All of it as one PNG."""
    panels = [(_shares, 2.8), (_times, _tall(result, 0.28)), (_drops, _tall(result, 0.46))]
    buffer = io.BytesIO()
    figure = _figure(panels, result, ["Cost by part", "Time of one text", "What each part is worth"])
    figure.savefig(buffer, format="png", dpi=170, facecolor=CARD)
    return buffer.getvalue()


def _tall(result: dict[str, Any], each: float) -> float:
    return 1.2 + each * len(result["parts"])


def _figure(
    panels: Sequence[tuple[Any, float]], result: dict[str, Any], titles: Sequence[str] = ()
) -> Figure:
    with matplotlib.rc_context(_STYLE):
        heights = [height for _, height in panels]
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        figure.patch.set_alpha(0)
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for (draw, _), axes, title in zip_longest(panels, grid[:, 0], titles):
            axes.patch.set_alpha(0)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(left=False)
            axes.set_axisbelow(True)
            axes.grid(axis="x", color=LINE, linewidth=0.8)
            axes.set_title(title or "", loc="left", fontsize=13, fontweight="bold", pad=26, x=-0.5)
            draw(axes, result)
        figure.draw_without_rendering()  # lays it out while the style holds
    return figure


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def _shares(axes: Axes, result: dict[str, Any]) -> None:
    rows = {"ms": "time", "flops": "FLOPs", "bytes": "file", "parameters": "parameters"}
    for place, key in enumerate(rows):
        left = 0.0
        for kind in result["kinds"]:
            share = kind["share"][key] * 100
            axes.barh(place, share, 0.66, left, color=COLOURS[kind["kind"]])
            if share >= 9:
                axes.text(left + share / 2, place, f"{share:.0f}%", ha="center", va="center", color=CARD)
            left += share
        if key == "ms":
            axes.barh(place, max(0.0, 100 - left), 0.66, left, color=SOFT)
    axes.set_yticks(range(len(rows)), list(rows.values()))
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75%", ""])
    handles = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    _legend(axes, handles)


def _times(axes: Axes, result: dict[str, Any]) -> None:
    rows = [*result["parts"], {"name": "between parts", "kind": None, **result["rest"]}]
    for place, row in enumerate(rows):
        axes.barh(place, row["ms"], 0.7, color=COLOURS.get(row["kind"], SOFT))
        at = (max(row["ms"], 0.0), place)
        axes.annotate(
            number(row["ms"]), at, (3, 0), textcoords="offset points", va="center", color=INK, fontsize=10
        )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.16 * max(row["ms"] for row in rows))
    axes.set_xlabel("median time, ms")


def _drops(axes: Axes, result: dict[str, Any]) -> None:
    names = [row["name"] for row in result["parts"]]
    names += [e["part"] for e in result["sensitivity"]["effects"] if e["part"] not in names]
    names = list(dict.fromkeys(names))
    for one in result["sensitivity"]["effects"]:
        colour, marker = CHANGES[one["change"]]
        place = names.index(one["part"]) + 0.24 * (list(CHANGES).index(one["change"]) - 1)
        low, high = (100 * value for value in one["ci95"])
        strength = 1.0 if one["signal"] else 0.4
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6, alpha=strength)
        face = colour if one["signal"] else "none"
        axes.plot(100 * one["drop"], place, marker, color=colour, markersize=5, markerfacecolor=face)
    axes.axvline(0, color=SOFT, linewidth=1)
    axes.set_xscale("symlog", linthresh=2, linscale=1)
    axes.set_xticks([-2, -1, 0, 1, 2, 5, 10, 20, 50], ["−2", "−1", "0", "1", "2", "5", "10", "20", "50"])
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("points of accuracy lost")
    handles = [
        axes.plot([], [], mark, color=colour, label=name)[0] for name, (colour, mark) in CHANGES.items()
    ]
    handles += axes.plot([], [], "o", color=SOFT, markerfacecolor="none", alpha=0.6, label="may be noise")
    _legend(axes, handles)


def _legend(axes: Axes, handles: Sequence[Any]) -> None:
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.03, 0.99), ncols=4, frameon=False,
                handlelength=0.8, columnspacing=0.9, handletextpad=0.4, fontsize=10)  # fmt: skip
