"""Across devices: what to take on each, all variants in one drawing, and the page's filters."""

from collections.abc import Callable, Mapping, Sequence

from device_bench import figures, plot
from device_bench.figures import NONE, Row, number, text

WIDE, NARROW = (1140, 520), (362, 430)


def _latency(key: str) -> Callable[[Row], float | None]:
    return lambda row: row["latency_ms"][key] if row["latency_ms"] else None


# What the drawing can have on its axis: key → its name there, and how a row tells it.
MEASURES: dict[str, tuple[str, Callable[[Row], float | None]]] = {
    "p50": ("median latency, ms", _latency("p50")),
    "p90": ("90th percentile of latency, ms", _latency("p90")),
    "size": ("model file, MB", lambda row: figures.megabytes(row["size_bytes"])),
    "memory": ("peak memory, MB", lambda row: row["peak_rss_mb"]),
    "energy": ("energy an answer, mJ", lambda row: row["energy_mj"]),
}


def overview(devices: Mapping[str, Sequence[Row]], keys: Mapping[int, str]) -> str:
    """The section, for rows by the name of their device. `keys` (by id of the row) tie marks to lines."""
    return (
        '<section class="overview" id="overview"><h2>Across devices</h2>'
        f"{_choices(devices)}{_drawings(devices, keys)}</section>"
    )


def filters(devices: Mapping[str, Sequence[Row]]) -> str:
    """Check boxes for device, engine and precision, where there is more than one of a kind."""
    rows = [row for part in devices.values() for row in part]
    kinds = {"device": list(devices)} if len(devices) > 1 else {}
    for name in ("engine", "precision"):
        found = list(dict.fromkeys(figures.facets(row)[name] for row in rows))
        kinds |= {name: found} if len(found) > 1 else {}
    if not kinds:
        return ""
    groups = "".join(map(_boxes, kinds, kinds.values()))
    return f'<form class="filters card" aria-label="Filters">{groups}</form>'


def _boxes(name: str, values: Sequence[str]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" name="{name}" value="{text(value)}" checked>'
        f"{text(figures.ENGINES.get(value, value))}</label>"
        for value in values
    )
    return f"<fieldset><legend>{name.capitalize()}</legend>{boxes}</fieldset>"


def _choices(devices: Mapping[str, Sequence[Row]]) -> str:
    heads = (
        "Device",
        "Take",
        "p50, ms",
        "p90, ms",
        "Accuracy",
        "File, MB",
        "Memory, MB",
        "Energy, mJ",
        "Why",
    )
    words = (0, 1, 8)
    head = "".join(f'<th scope="col"{" class=words" if n in words else ""}>{name}</th>'
                   for n, name in enumerate(heads))  # fmt: skip
    lines = ""
    for device, rows in devices.items():
        cells = zip(heads, _choice(device, rows), strict=True)
        told = "".join(
            f'<td data-label="{name}"{" class=words" if n in words else ""}>{cell}</td>'
            for n, (name, cell) in enumerate(cells)
        )
        lines += f'<tr data-device="{text(device)}">{told}</tr>'
    return (
        '<div class="card"><header><h3>What to take on each device</h3><span class="hint">the quickest '
        "that is at most one point less accurate than the best there</span></header>"
        '<div class="scroll" tabindex="0" role="region" aria-label="What to take"><table class="plain">'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div></div>"
    )


def _choice(device: str, rows: Sequence[Row]) -> list[str]:
    same = with_tokenization(rows)
    row = figures.choice(same)
    if row is None:
        named = next((one for one in same if one.get("default")), None)
        take = (
            f'<span class="name {figures.colour(named)}">{text(named["variant"])}</span>' if named else NONE
        )
        return [text(device), take, *[NONE] * 6, text(_untimed(same))]
    name = f'<span class="name {figures.colour(row)}">{text(figures.label(row, same))}</span>'
    return [
        text(device),
        name,
        f"<b>{number(figures.p50(row))}</b>",
        number(row["latency_ms"]["p90"]),
        figures.metric(row),
        number(figures.megabytes(row["size_bytes"])),
        number(row["peak_rss_mb"]),
        number(row["energy_mj"]),
        text(_reason(row, same)),
    ]


def with_tokenization(rows: Sequence[Row]) -> list[Row]:
    """The rows that time what an app waits for: with tokenization where there are any."""
    return [row for row in rows if row["tokenization"]] or list(rows)


def _untimed(rows: Sequence[Row]) -> str:
    same = [row["parity"]["agreement"] for row in rows if row["parity"]]
    proved = f"; the same labels as the checkpoint in {min(same):.1%} of the golden texts" if same else ""
    if any(row["emulated"] for row in rows):
        return f"emulated, so nothing is timed: the bundle's default stands{proved}"
    return f"nothing was timed here: the bundle's default stands{proved}"


def _reason(row: Row, rows: Sequence[Row]) -> str:
    edge = [one for one in rows if figures.colour(one) != "torch" and figures.p50(one) is not None]
    if len(edge) == 1:
        return "the only variant measured"
    others = sorted((one for one in edge if one is not row), key=lambda one: figures.p50(one) or 0)
    quicker = [one for one in others if (figures.p50(one) or 0) < (figures.p50(row) or 0)]
    following = next(one for one in others if one not in quicker) if len(quicker) < len(others) else None
    said = f"{(figures.p50(following) or 0) / (figures.p50(row) or 1):.2f} times as fast as the next, " \
        f"{figures.label(following, rows)}" if following else "nothing slower was measured"  # fmt: skip
    if quicker:
        said += f"; {figures.label(quicker[0], rows)} is quicker, but loses more than a point"
    return said


def _drawings(devices: Mapping[str, Sequence[Row]], keys: Mapping[int, str]) -> str:
    drawn = {key: _drawing(devices, keys, key) for key in MEASURES}
    drawn = {key: svg for key, svg in drawn.items() if svg}
    if not drawn:
        return ""
    options = "".join(f'<option value="{key}">{MEASURES[key][0]}</option>' for key in drawn)
    body = "".join(
        f'<div data-measure="{key}"{" hidden" if n else ""}>{svg}</div>'
        for n, (key, svg) in enumerate(drawn.items())
    )
    return (
        '<figure class="card"><header><h3>Every variant on every device</h3><label class="measure">against '
        f"<select>{options}</select></label></header>{body}</figure>"
    )


def _drawing(devices: Mapping[str, Sequence[Row]], keys: Mapping[int, str], measure: str) -> str:
    axis, value = MEASURES[measure]
    rows = [(name, row) for name, part in devices.items() for row in with_tokenization(part)]
    rows = [(name, row) for name, row in rows if value(row) and figures.accuracy(row) is not None]
    best = figures.front([row for _, row in rows], value)
    chosen = [figures.choice(with_tokenization(part)) for part in devices.values()]
    points = [
        plot.Point(
            key=keys[id(row)],
            label=f"{plot.short(name, 14)}: {figures.label(row, devices[name])}"
            if len(devices) > 1
            else row["variant"],
            tip=_tip(name, row, devices[name]),
            colour=figures.colour(row),
            latency=(0.0, 0.0, 0.0),
            at=value(row) or 0,
            spread=tuple(row["latency_ms"]["ci95"]) if measure == "p50" else (value(row) or 0,) * 2,
            accuracy=figures.accuracy(row),
            size=figures.megabytes(row["size_bytes"]),
            on_front=any(row is one for one in best),
            default=any(row is one for one in chosen),
            facets={**figures.facets(row), "device": name},
        )
        for name, row in rows
    ]
    return "".join(
        plot.pareto(points, *size, kind, axis) for size, kind in ((WIDE, "wide"), (NARROW, "narrow"))
    )


def _tip(device: str, row: Row, rows: Sequence[Row]) -> str:
    latency = row["latency_ms"]
    lines = [
        figures.label(row, rows),
        device,
        f"p50 {number(latency['p50'])} ms, p90 {number(latency['p90'])} ms" if latency else "not timed",
        f"{figures.metric_name([row])} {figures.metric(row)}",
        f"{number(figures.megabytes(row['size_bytes']))} MB" if row["size_bytes"] else "",
        f"peak memory {number(row['peak_rss_mb'])} MB" if row["peak_rss_mb"] else "",
        f"{number(row['energy_mj'])} mJ an answer" if row["energy_mj"] else "",
    ]
    return "\n".join(line for line in lines if line)
