"""A sustained run as a drawing: latency of each slice, and the temperature under it."""

from collections.abc import Callable, Sequence

from device_bench import figures
from device_bench.figures import Row, number, text

SIZES = ((1140, 230, "wide"), (362, 230, "narrow"))
LEFT, RIGHT, TOP, BOTTOM = 52, 46, 26, 40


def sustained(rows: Sequence[Row]) -> str:
    """A card for each row that has a sustained run; nothing where none has."""
    return "".join(_card(row, rows) for row in rows if row.get("sustained"))


def _card(row: Row, rows: Sequence[Row]) -> str:
    told, slices = row["sustained"], row["sustained"]["slices"]
    drop = told.get("drop")
    held = sum(bool(one.get("throttled")) for one in slices)
    words = [
        f"{number(told['minutes'])} minutes without pause",
        f"at the end {number(drop)} times the latency of the beginning" if drop else "",
        f"throttled in {held} of {len(slices)} slices" if held else "",
    ]
    drawn = "".join(_drawing(slices, *size) for size in SIZES)
    head = f"<h3>Sustained: {text(figures.label(row, rows))}</h3>"
    hint = f'<span class="hint">{text(", ".join(filter(None, words)))}</span>'
    legend = '<ul class="legend"><li><i class="onnx"></i>p50 of a slice, ms</li>'
    warm = any(one.get("temperature_c") is not None for one in slices)
    legend += '<li><i class="litert"></i>temperature, °C</li></ul>' if warm else "</ul>"
    return f'<figure class="card"><header>{head}{hint}</header>{drawn}{legend}</figure>'


def _drawing(slices: Sequence[Row], width: int, height: int, kind: str) -> str:
    end = max(one["t_s"] for one in slices)
    x = _scale(0, end, LEFT, width - RIGHT)
    latencies = [(one["t_s"], one["p50"]) for one in slices if one.get("p50")]
    warmth = [(one["t_s"], one["temperature_c"]) for one in slices if one.get("temperature_c") is not None]
    base = height - BOTTOM
    parts = [f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{base}" y2="{base}"/>']
    parts += [_word("tick", x(t), base + 17, "middle", f"{t / 60:g}") for t in _minutes(end, width)]
    parts.append(_word("axis", width - RIGHT, height - 4, "end", "minutes →"))
    for points, colour, edge, anchor in (
        (latencies, "onnx", LEFT - 8, "end"), (warmth, "litert", width - RIGHT + 8, "start")
    ):  # fmt: skip
        parts += _line(points, colour, x, base, edge, anchor)
    label = "Latency and temperature over the minutes of the sustained run"
    return f'<svg class="pareto {kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">' \
        f"{''.join(parts)}</svg>"  # fmt: skip


def _line(
    points: Sequence[tuple[float, float]], colour: str, x: Callable[[float], float], base: int, edge: float,
    anchor: str,
) -> list[str]:  # fmt: skip
    """One curve on an axis of its own, which starts at 0 for neither: what moves is to be seen."""
    if not points:
        return []
    low, high = min(value for _, value in points), max(value for _, value in points)
    room = max(high - low, 0.1 * abs(high), 1e-6) * 0.25
    y = _scale(low - room, high + room, base, TOP)
    path = "L".join(f"{x(t):.1f},{y(value):.1f}" for t, value in points)
    ticks = sorted({low, high})
    return [
        f'<path class="curve {colour}" d="M{path}"/>',
        *(f'<circle class="dot {colour}" cx="{x(t):.1f}" cy="{y(value):.1f}" r="2"/>' for t, value in points),
        *(_word(f"tick {colour}", edge, y(value) + 4, anchor, number(value)) for value in ticks),
    ]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / ((high - low) or 1) * (end - start)


def _minutes(end: float, width: int) -> list[float]:
    most = 10 if width > 600 else 5
    step = next(s for s in (10, 30, 60, 120, 300, 600, 1800, 3600, 7200) if end / s <= most or s == 7200)
    return [float(t) for t in range(0, int(end) + 1, step)]


def _word(kind: str, x: float, y: float, anchor: str, words: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(words)}</text>'
