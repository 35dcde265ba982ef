"""The report: bench rows → one self-contained HTML page, readable on a phone, with nothing to fetch."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from device_bench import figures, history, overview, plot
from device_bench.curve import sustained
from device_bench.figures import NONE, Row, number, text
from device_bench.rows import check_row
from device_bench.table import table
from runtimes.bundle import write_atomic
from runtimes.errors import InputError

WIDE, NARROW = (1140, 470), (362, 400)


def report(
    rows: Sequence[Row], out: Path, title: str = "edgewise bench", earlier: Sequence[Row] = ()
) -> Path:
    """Writes the page for `rows` (one section a device) to `out`, atomically, and returns `out`.

    With several devices an overview stands first; with `earlier` rows, what changed since. All that comes
    from the rows is escaped, and the page's own policy lets only its own script and style run.
    Raises InputError for no rows or a row that breaks the schema.
    """
    if not rows:
        raise InputError("report: no rows; make some with `edgewise bench BUNDLE`")
    for count, row in enumerate(rows, 1):
        check_row(row, f"report: row {count}")
    for count, row in enumerate(earlier, 1):
        check_row(row, f"report: earlier row {count}")
    folder = Path(__file__).parent
    style, script = (folder / "page.css").read_text("utf-8"), (folder / "page.js").read_text("utf-8")
    page = Template((folder / "page.html").read_text("utf-8")).substitute(
        title=text(title),
        subtitle=_subtitle(rows),
        body=_body(rows, earlier),
        footer="Made by <code>edgewise report</code>. This page is one file and loads nothing.",
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page.encode())
    return out


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _subtitle(rows: Sequence[Row]) -> str:
    bundles = sorted({str(row["bundle"]) for row in rows if row["bundle"] and figures.colour(row) != "torch"})
    devices = len({key[:3] for key in _by_device(rows)})
    days = sorted({str(row["started"])[:10] for row in rows if row.get("started")})
    parts = [
        " and ".join(bundles[:3]),
        f"{devices} device{'s' if devices > 1 else ''}",
        " to ".join(days[:: max(1, len(days) - 1)]),
    ]
    return text(" · ".join(part for part in parts if part))


def _by_device(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        device = (
            row["device"]["name"],
            row["simulated_profile"] or "",
            row["emulated"],
            row.get("started") or "",
        )
        key = tuple(str(part) for part in device)  # figures of two runs are not compared
        found.setdefault(key, []).append(row)
    return found


def _names(sections: dict[tuple[str, ...], list[Row]]) -> list[str]:
    """What to call each section: the device, and profile, emulation and time where they tell it apart."""
    plain = [" ".join(filter(None, (key[0], key[1], "(emulated)" * (key[2] == "True")))) for key in sections]
    return [
        f"{name}, {key[3][:19]}" if plain.count(name) > 1 else name
        for name, key in zip(plain, sections, strict=True)
    ]


def _body(rows: Sequence[Row], earlier: Sequence[Row]) -> str:
    sections = _by_device(rows)
    devices = dict(zip(_names(sections), sections.values(), strict=True))
    keys = {id(row): f"d{n}r{count}" for n, part in enumerate(sections.values())
            for count, row in enumerate(part)}  # fmt: skip
    links = [f'<a href="#d{n}">{text(name)}</a>' for n, name in enumerate(devices)]
    changed = history.history(history.compare(rows, earlier)) if earlier else ""
    if changed:
        links.append('<a href="#history">Against the earlier run</a>')
    head = f'<nav class="devices" aria-label="Sections">{"".join(links)}</nav>' if len(links) > 1 else ""
    across = overview.overview(devices, keys) if len(devices) > 1 else ""
    parts = [_device(f"d{n}", name, part, keys) for n, (name, part) in enumerate(devices.items())]
    return head + overview.filters(devices) + across + changed + "".join(parts)


def _device(key: str, name: str, rows: list[Row], keys: dict[int, str]) -> str:
    kinds = sorted({row["tokenization"] for row in rows}, reverse=True)
    return (
        f'<section class="device" id="{key}" data-device="{text(name)}">'
        f"{_device_head(rows)}{_verdict(rows, kinds[0])}{_switch(kinds)}"
        f"{''.join(_drawings(rows, keys, kind, kind != kinds[0]) for kind in kinds)}"
        f"{sustained(rows)}{table(rows, keys)}"
        f'<div class="split">{_notes(rows)}{_method(rows)}</div></section>'
    )


def _device_head(rows: list[Row]) -> str:
    device = rows[0]["device"]
    badges = []
    if any(row["emulated"] for row in rows):
        badges.append("emulated: times say nothing")
    if rows[0]["simulated_profile"]:
        badges.append(f"simulated: {rows[0]['simulated_profile']}")
    if any(row.get("quick") for row in rows):
        badges.append("quick run: not for quoting")
    facts = [
        device["soc"] if device["soc"] != device["name"] else None,
        f"{device['cores']} core{'s' if device['cores'] > 1 else ''}" if device["cores"] else None,
        f"{device['memory_mb'] / 1024:.1f} GB memory" if device["memory_mb"] else None,
        " ".join(map(str, device["isa"])) if device["isa"] else None,
        device["os"],
        f"governor {device['governor']}" if device["governor"] else None,
        f"{device['temperature_c']} °C at the start" if device["temperature_c"] is not None else None,
    ]
    shown = "".join(f'<span class="badge warn">{text(badge)}</span>' for badge in badges)
    return (
        f'<div class="device-head"><h2>{text(device["name"])}</h2>{shown}</div>'
        f'<p class="facts">{text(" · ".join(str(fact) for fact in facts if fact))}</p>'
    )


def _verdict(rows: list[Row], kind: bool) -> str:
    same = [row for row in rows if row["tokenization"] == kind]
    row = figures.headline(same)
    if row is None:
        return ""
    base = figures.reference(same)
    ratio = row.get("ratio_to")
    how = "tokenization included" if kind else "without tokenization"
    cells = [
        ("Median latency", _with_unit(figures.p50(row), "ms"), _speed(ratio), how),
        (
            "Model file",
            _with_unit(figures.megabytes(row["size_bytes"]), "MB"),
            _smaller(ratio),
            _tokenizer(row),
        ),
        (_metric_name(row), figures.metric(row), _delta(row, base), _metric_n(row)),
        ("Load to first answer", _with_unit(row["cold_start_ms"], "ms"), "", _memory(row)),
    ]
    keys = "".join(_key(head, value, filter(None, lines)) for head, value, *lines in cells)
    return (
        f'<div class="card verdict"><h3>{text(figures.label(row, rows))}</h3>'
        f'<p class="why">{text(figures.why(row, same))}</p><dl class="keys">{keys}</dl></div>'
    )


def _with_unit(value: float | None, unit: str) -> str:
    return NONE if value is None else f"{number(value)} <small>{unit}</small>"


def _memory(row: Row) -> str:
    return "" if row["peak_rss_mb"] is None else f"peak memory {number(row['peak_rss_mb'])} MB"


def _key(head: str, value: str, lines: Iterable[str]) -> str:
    below = "".join(f"<span>{line}</span>" for line in lines)
    return f"<div><dt>{head}</dt><dd><b>{value}</b>{below}</dd></div>"


def _speed(ratio: dict[str, Any] | None) -> str:
    if not ratio:
        return ""
    times = f'<span class="ratio">{number(ratio["speed"])}×</span>'
    return f"{times} as fast as PyTorch ({figures.interval(ratio['ci95'])})"


def _smaller(ratio: dict[str, Any] | None) -> str:
    if not ratio or not ratio["size"]:
        return ""
    return f'<span class="ratio">{number(ratio["size"])}×</span> smaller than the checkpoint'


def _tokenizer(row: Row) -> str:
    size = figures.megabytes(row.get("tokenizer_bytes"))
    return (
        ""
        if size is None
        else f"{number((figures.megabytes(row['size_bytes']) or 0) + size)} MB with its tokenizer"
    )


def _metric_name(row: Row) -> str:
    return text(figures.metric_name([row]).capitalize())


def _metric_n(row: Row) -> str:
    if not row["metric"]:
        return "not measured"
    margin = figures.margin(row)
    unit = "tokens" if row["metric"]["name"] == figures.PERPLEXITY else "texts"
    return f"on {row['metric']['n']:,} {unit}" + (f", ±{margin * 100:.1f}" if margin else "")


def _delta(row: Row, base: Row | None) -> str:
    mine, theirs = figures.accuracy(row), figures.accuracy(base) if base else None
    if mine is None or theirs is None:
        return ""
    points = (mine - theirs) * 100
    kind = "loss" if points <= -0.005 else "ratio"
    told = figures.lost(points, figures.metric_name([row])).replace("-", "−")
    return f'<span class="{kind}">{told}</span> against the checkpoint'


def _switch(kinds: list[bool]) -> str:
    if len(kinds) < 2:
        return ""
    names = {True: "Text in, answer out", False: "Model alone, tokens ready"}
    buttons = "".join(
        f'<button type="button" value="{str(kind).lower()}" aria-pressed="{str(kind == kinds[0]).lower()}">'
        f"{names[kind]}</button>"
        for kind in kinds
    )
    return f'<div class="switch" role="group" aria-label="What is timed">{buttons}</div>'


def _points(rows: list[Row], keys: dict[int, str]) -> list[plot.Point]:
    best = figures.front(rows)
    return [
        plot.Point(
            key=keys[id(row)],
            label=figures.label(row, rows),
            tip=_tip(row, rows),
            colour=figures.colour(row),
            latency=tuple(row["latency_ms"][key] for key in ("p50", "p90", "p99")),
            at=row["latency_ms"]["p50"],
            spread=tuple(row["latency_ms"]["ci95"]),
            accuracy=figures.accuracy(row),
            size=figures.megabytes(row["size_bytes"]),
            on_front=any(row is one for one in best),
            default=bool(row.get("default")),
            facets=figures.facets(row),
        )
        for row in rows
        if row["latency_ms"]
    ]


def _tip(row: Row, rows: list[Row]) -> str:
    latency, ratio = row["latency_ms"], row.get("ratio_to")
    lines = [
        figures.label(row, rows),
        f"{row['engine']} {row['engine_version'] or ''}",
        f"p50 {number(latency['p50'])} ms ({figures.interval(latency['ci95'])})",
        f"p90 {number(latency['p90'])} ms, p99 {number(latency['p99'])} ms",
        f"{figures.metric_name([row])} {figures.metric(row)}" if row["metric"] else "accuracy not measured",
        f"{number(figures.megabytes(row['size_bytes']))} MB" if row["size_bytes"] else "",
        f"{number(ratio['speed'])}× as fast as the checkpoint in PyTorch" if ratio else "",
    ]
    return "\n".join(line for line in lines if line)


def _drawings(rows: list[Row], keys: dict[int, str], kind: bool, hidden: bool) -> str:
    points = _points([row for row in rows if row["tokenization"] == kind], keys)
    if not points:
        return ""
    open_tag = f'<div data-tokenization="{str(kind).lower()}"{" hidden" if hidden else ""}>'
    what = figures.metric_name(rows)
    drawn = plot.pareto(points, *WIDE, "wide", what=what) + plot.pareto(points, *NARROW, "narrow", what=what)
    body = drawn + _legend(points) if drawn else '<p class="hint">No accuracy was measured.</p>'
    how = "text in, answer out" if kind else "model alone"
    return (
        open_tag
        + _figure(f"{text(what.capitalize())} against latency", f"up and to the left is better · {how}", body)
        + _figure(
            "Latency ranges", "dot p50, wide bar to p90, thin bar to p99 · log scale", plot.ranges(points)
        )
        + "</div>"
    )


def _figure(title: str, hint: str, body: str) -> str:
    head = f'<header><h3>{title}</h3><span class="hint">{hint}</span></header>'
    return f'<figure class="card">{head}{body}</figure>'


def _legend(points: list[plot.Point]) -> str:
    used = [colour for colour in figures.ENGINES if any(point.colour == colour for point in points)]
    items = [f'<li><i class="{colour}"></i>{figures.ENGINES[colour]}</li>' for colour in used]
    items.append('<li><i class="dash"></i>front: nothing is both faster and better</li>')
    items.append("<li>area: size of the model file</li>")
    if any(point.default for point in points):
        items.append('<li><i class="halo"></i>ring: the bundle’s default</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _notes(rows: list[Row]) -> str:
    said: dict[str, list[str]] = {}
    for row in rows:
        for note in filter(None, (part.strip() for part in str(row["note"] or "").split("; "))):
            name = figures.label(row, rows)
            if name not in said.setdefault(note, []):
                said[note].append(name)
    total = len({figures.label(row, rows) for row in rows})
    items = [
        f"<li>{text(note)}"
        + ("" if len(names) == total else f" <span>({text(', '.join(names))})</span>")
        + "</li>"
        for note, names in said.items()
    ]
    if not items:
        return ""
    return f'<div class="card"><h3>Notes</h3><ul class="notes">{"".join(items)}</ul></div>'


def _method(rows: list[Row]) -> str:
    first = rows[0]
    sample, versions = first.get("sample") or {}, first.get("versions") or {}
    for row in rows:
        versions = {**versions, **(row.get("versions") or {}), str(row["engine"]): row["engine_version"]}
    counts = sorted({row["n"] for row in rows if row["n"]})
    overhead = first.get("overhead_ms")
    facts = {
        "Started": str(first.get("started") or "").replace("T", " ").replace("+00:00", " UTC"),
        "Rounds": " or ".join(f"{count:,}" for count in counts)
        + (", all variants in a new random order each round" if len(rows) > 1 else ""),
        "Threads, batch": f"{first['threads']}, {first['batch']}",
        "Texts": _texts(sample),
        "Interval": "95%, bootstrap of the median; ratios by whole rounds",
        "Harness": f"{number(overhead * 1000)} µs for an empty call" if overhead is not None else "",
        "Cold start": "a page load of its own with a fresh worker, nothing cached"
        if first["device"].get("browser")
        else "fresh process, file cache warm, imports included",
        "Parity": "golden inputs: largest error of a logit, share of the same top label",
        "Versions": ", ".join(f"{name} {version or NONE}" for name, version in sorted(versions.items())),
    }
    items = "".join(f"<dt>{key}</dt><dd>{text(value)}</dd>" for key, value in facts.items() if value)
    return f'<div class="card"><h3>How it was measured</h3><dl class="list">{items}</dl></div>'


def _texts(sample: dict[str, Any]) -> str:
    if not {"n", "chars_p50", "chars_max"} <= sample.keys():
        return ""
    lengths = (
        f"median {sample['chars_p50']:,}, longest {sample['chars_max']:,} {sample.get('unit', 'characters')}"
    )
    return f"{sample['n']:,} at their own lengths: {lengths}"
