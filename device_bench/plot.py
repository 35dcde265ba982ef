"""The report's drawings as inline SVG: accuracy against latency, and latency ranges."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from device_bench.figures import number, text, tick


@dataclass(frozen=True)
class Point:
    """One row of a drawing. `key` ties it to its line of the table, `tip` holds the lines of its label.

    `at` is where it stands on the axis of `pareto`, `spread` its interval there; `facets` are what the page's
    filters ask for.
    """

    key: str
    label: str
    tip: str
    colour: str
    latency: tuple[float, float, float]  # p50, p90, p99 in ms
    at: float
    spread: tuple[float, float]
    accuracy: float | None
    size: float | None  # MB
    on_front: bool
    default: bool
    facets: dict[str, str]


@dataclass(frozen=True)
class _Frame:
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_range: tuple[float, float]  # log10 ms
    y_range: tuple[float, float]

    def x(self, ms: float) -> float:
        low, high = self.x_range
        return self.left + (math.log10(ms) - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return (
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)
        )


_Box = tuple[float, float, float, float]


def pareto(
    points: Sequence[Point], width: int, height: int, kind: str, axis: str = "median latency, ms",
    what: str = "accuracy",
) -> str:  # fmt: skip
    """`what` (the metric) against `at` (log axis), the area of a bubble for size, the front as a line.

    Of more than twelve points only those on the front and the defaults bear their names.
    """
    drawn = sorted((p for p in points if p.accuracy is not None), key=lambda p: -(p.size or 0))
    if not drawn:
        return ""
    frame = _frame(drawn, width, height)
    largest = max((p.size or 0 for p in drawn), default=0) or 1
    reach = 30 if width > 600 else 20
    radii = {p.key: max(5.0, reach * math.sqrt((p.size or 0) / largest)) for p in drawn}
    parts = [*_grid(frame, axis, what), _front_line(frame, drawn)]
    named = [p for p in drawn if len(drawn) <= 12 or p.on_front or p.default]
    labels = _place_labels(frame, drawn, named, radii)
    parts += [_bubble(frame, point, radii[point.key]) for point in drawn]
    parts += [_label(frame, point, *labels[point.key]) for point in drawn if point.key in labels]
    title = f"{text(what)} against {text(axis)}; the same figures are in the tables below"
    return (
        f'<svg class="pareto {kind}" viewBox="0 0 {width} {height}" role="group" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )


def _frame(points: Sequence[Point], width: int, height: int) -> _Frame:
    x_low = math.log10(min(p.spread[0] for p in points)) - 0.22
    x_high = math.log10(max(p.spread[1] for p in points)) + 0.22
    values = [p.accuracy for p in points if p.accuracy is not None]
    span = max(max(values) - min(values), 0.01)
    y_range = min(values) - 0.28 * span, max(values) + 0.28 * span
    return _Frame(width, height, 52, 16, 30, 46, (x_low, x_high), y_range)


def _grid(frame: _Frame, axis: str, what: str) -> list[str]:
    base, end = frame.height - frame.bottom, frame.width - frame.right
    parts = []
    for value in _linear_ticks(*frame.y_range):
        y = f"{frame.y(value):.1f}"
        parts.append(f'<line class="grid" x1="{frame.left}" x2="{end}" y1="{y}" y2="{y}"/>')
        parts.append(_word("tick", frame.left - 8, frame.y(value) + 4, "end", tick(value, what)))
    for value in log_ticks(*frame.x_range, most=8 if frame.width > 600 else 5):
        x = f"{frame.x(value):.1f}"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{frame.top}" y2="{base}"/>')
        parts.append(_word("tick", frame.x(value), base + 18, "middle", f"{value:g}"))
    parts.append(_word("axis", end, frame.height - 6, "end", f"{axis}, log scale →"))
    parts.append(_word("axis", 4, 16, "start", f"↑ {what}"))
    return parts


def _word(kind: str, x: float, y: float, anchor: str, words: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(words)}</text>'


def _linear_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 6
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    return [count * step for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers (1, 2, 5 or 1 alone a decade) between 10**low and 10**high."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**d for d in decades for f in factors if low <= math.log10(f * 10.0**d) <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def _corners(frame: _Frame, points: Sequence[Point]) -> list[tuple[float, float]]:
    """The corners of the front's staircase, from the quickest point on."""
    best = sorted((p for p in points if p.on_front), key=lambda p: p.at)
    corners: list[tuple[float, float]] = []
    for point in best:
        x, y = frame.x(point.at), frame.y(point.accuracy or 0)
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return corners


def _front_line(frame: _Frame, points: Sequence[Point]) -> str:
    corners = _corners(frame, points)
    if not corners:
        return ""
    return f'<path class="front" d="M{"L".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>'


def _bubble(frame: _Frame, point: Point, radius: float) -> str:
    x, y = frame.x(point.at), frame.y(point.accuracy or 0)
    low, high = frame.x(point.spread[0]), frame.x(point.spread[1])
    marks = [(" on-front", point.on_front), (" default", point.default)]
    classes = f"point {point.colour}{''.join(mark for mark, wanted in marks if wanted)}"
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{radius + 4:.1f}"/>' if point.default else ""
    return (
        f'<g class="{classes}"{facets(point.facets)} data-key="{text(point.key)}" '
        f'data-tip="{text_lines(point.tip)}" tabindex="0" role="img" '
        f'aria-label="{text(point.tip.replace(chr(10), ", "))}">{ring}'
        f'<circle class="disc" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2"/></g>'
    )


def facets(found: dict[str, str]) -> str:
    """What the page's filters look at, as attributes."""
    return "".join(f' data-{name}="{text(value)}"' for name, value in found.items())


def text_lines(value: str) -> str:
    """Lines of text for an attribute: each escaped, kept apart by a line feed."""
    return "&#10;".join(text(line) for line in value.split("\n"))


def _most(frame: _Frame) -> int:
    """How many characters of a name there is room for."""
    return 44 if frame.width > 600 else 30


def short(value: str, most: int) -> str:
    """At most `most` characters."""
    return value if len(value) <= most else value[: most - 1] + "…"


def _place_labels(
    frame: _Frame, points: Sequence[Point], named: Sequence[Point], radii: dict[str, float]
) -> dict[str, tuple[float, float, str]]:
    """x, y and anchor of each label: the first of twelve places around a bubble that is least covered."""
    corners = _corners(frame, points)
    line = [(min(a[0], b[0]) - 2, min(a[1], b[1]) - 2, max(a[0], b[0]) + 2, max(a[1], b[1]) + 2)
            for a, b in pairwise(corners)]  # fmt: skip
    placed: list[_Box] = []
    found = {}
    for point in sorted(named, key=lambda p: (not p.default, not p.on_front)):
        x, y, r = frame.x(point.at), frame.y(point.accuracy or 0), radii[point.key]
        places = []
        for gap in (r + 7, r + 24):
            places += [(x + gap, y + 4, "start"), (x - gap, y + 4, "end")]
            places += [(x, y - gap, "middle"), (x, y + gap + 10, "middle")]
            places += [(x + 0.6 * gap, y - gap, "start"), (x + 0.6 * gap, y + gap + 10, "start")]
            places += [(x - 0.6 * gap, y - gap, "end"), (x - 0.6 * gap, y + gap + 10, "end")]
        others = [_disc(frame, p, radii[p.key]) for p in points if p is not point]
        costs = [_cost(frame, _box(frame, point, *place), placed, others, line) for place in places]
        best = places[costs.index(min(costs))]
        placed.append(_box(frame, point, *best))
        found[point.key] = best
    return found


def _box(frame: _Frame, point: Point, x: float, y: float, anchor: str) -> _Box:
    width = 7.3 * len(short(point.label, _most(frame)))
    left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
    return left, y - 11, left + width, y + 4


def _disc(frame: _Frame, point: Point, radius: float) -> _Box:
    x, y = frame.x(point.at), frame.y(point.accuracy or 0)
    return x - radius, y - radius, x + radius, y + radius


def _cost(
    frame: _Frame, box: _Box, placed: Sequence[_Box], discs: Sequence[_Box], line: Sequence[_Box]
) -> float:
    """What a label covers there, other labels worst; leaving the drawing is worse still."""
    outside = max(0.0, 2 - box[0]) + max(0.0, box[2] - frame.width + 2) + max(0.0, frame.top - 8 - box[1])
    outside += max(0.0, box[3] - (frame.height - frame.bottom))
    covered = [(3.0, placed), (1.0, discs), (0.6, line)]
    return outside * 40 + sum(weight * _overlap(box, other) for weight, boxes in covered for other in boxes)


def _overlap(a: _Box, b: _Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _label(frame: _Frame, point: Point, x: float, y: float, anchor: str) -> str:
    bold = " default" if point.default else ""
    return (
        f'<text class="label {point.colour}{bold}"{facets(point.facets)} x="{x:.1f}" y="{y:.1f}" '
        f'text-anchor="{anchor}" aria-hidden="true">{text(short(point.label, _most(frame)))}</text>'
    )


def ranges(points: Sequence[Point]) -> str:
    """A list of bars from p50 to p99 on one log axis, quickest first. Positions are shares of the width."""
    if not points:
        return ""
    low = math.log10(min(p.latency[0] for p in points)) - 0.06
    high = math.log10(max(p.latency[2] for p in points)) + 0.06

    def at(ms: float) -> str:
        return f"{(math.log10(ms) - low) / (high - low) * 100:.2f}%"

    ticks = log_ticks(low, high, most=6)
    grid = "".join(f'<line class="grid" x1="{at(t)}" x2="{at(t)}" y1="0" y2="100%"/>' for t in ticks)
    bars = [_range(point, grid, at) for point in sorted(points, key=lambda p: p.latency[0])]
    names = "".join(f'<text class="tick" x="{at(t)}" y="14" text-anchor="middle">{t:g}</text>' for t in ticks)
    axis = f'<span></span><svg height="18">{names}</svg><span>p50 / p99, ms</span>'
    axis = f'<li class="range-axis" aria-hidden="true">{axis}</li>'
    return f'<ol class="ranges">{"".join(bars)}{axis}</ol>'


def _range(point: Point, grid: str, at: Callable[[float], str]) -> str:
    median, p90, p99 = point.latency
    said = f"{point.label}: p50 {number(median)} ms, p90 {number(p90)} ms, p99 {number(p99)} ms"

    def line(kind: str, start: float, end: float) -> str:
        return f'<line class="{kind}" x1="{at(start)}" x2="{at(end)}" y1="50%" y2="50%"/>'

    return (
        f'<li class="range {point.colour}"{facets(point.facets)} data-key="{text(point.key)}" '
        f'data-tip="{text_lines(point.tip)}" tabindex="0" aria-label="{text(said)}">'
        f'<span class="name">{text(point.label)}</span>'
        f'<svg height="24" aria-hidden="true">{grid}{line("far", median, p99)}{line("near", median, p90)}'
        f'<circle class="p50" cx="{at(median)}" cy="50%" r="5"/></svg>'
        f'<span class="value">{number(median)}<small> / {number(p99)}</small></span></li>'
    )
