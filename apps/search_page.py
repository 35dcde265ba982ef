"""search.html: the trials of a search as one self-contained page, in the report's own style."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import device_bench
from device_bench import plot
from device_bench.figures import NONE, number, percent, text
from runtimes.files import write_atomic

WIDE, NARROW = (1140, 470), (362, 400)
# Reasons are sentences: they wrap, and on a phone they take the whole line.
_STYLE = (
    "td.why{white-space:normal!important;min-width:300px;text-align:left;overflow-wrap:anywhere}"
    "@media (max-width:760px){td.why{min-width:0;grid-column:1/-1}}"
)
_Row = dict[str, Any]


def search_page(result: dict[str, Any], out: Path, title: str) -> Path:
    """Writes the page of what `apps.search.search` returns to `out`, atomically. Loads nothing."""
    folder = Path(device_bench.__file__).parent
    style, script = (folder / "page.css").read_text("utf-8") + _STYLE, (folder / "page.js").read_text("utf-8")
    done = [row for row in result["trials"] if row["why"] is None]
    body = _verdict(result) + _drawing(result, done) + _table(result) + _foot(result)
    page = Template((folder / "page.html").read_text("utf-8")).substitute(
        title=text(f"{title}: search under a budget"),
        subtitle=text(_subtitle(result)),
        body=f'<section class="device">{body}</section>',
        footer="Made by <code>edgewise compress --max-drop</code>. This page is one file and loads nothing.",
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
    )
    write_atomic(out, page.encode())
    return out


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _subtitle(result: dict[str, Any]) -> str:
    budget = result["budget"]
    parts = [f"{len(result['trials'])} trials", f"at most {number(100 * budget['max_drop'])} points lost"]
    if budget["latency_ms"] is not None:
        parts.append(f"p50 up to {number(budget['latency_ms'])} ms")
    if budget["size_mb"] is not None:
        parts.append(f"up to {number(budget['size_mb'])} MB")
    return " · ".join(parts)


def _engine(row: _Row) -> str:
    return "litert" if row["variant"].startswith("tflite") else row["variant"].partition("-")[0]


def _colour(row: _Row) -> str:
    engine = _engine(row)
    return engine if engine in ("onnx", "litert") else "other"


def _verdict(result: dict[str, Any]) -> str:
    row = next((row for row in result["trials"] if row["number"] == result["pick"]), None)
    if row is None:
        return (
            '<div class="card verdict"><h3>No trial keeps the budget</h3><p class="why">'
            "The table says what each one misses. Nothing was written.</p></div>"
        )
    keys = "".join(
        f"<div><dt>{head}</dt><dd><b>{value}</b><span>{below}</span></dd></div>"
        for head, value, below in _cells(row, result["original"], result["test"])
    )
    test = result["test"]
    why = f"The pick, trial {row['number']}: {_why(result['budget'])}."
    if test and not test["kept"]:
        why += " On the test rows it loses more than was asked for; validation rows decided."
    return (
        f'<div class="card verdict"><h3>{text(row["name"])}</h3><p class="why">{text(why)}</p>'
        f'<dl class="keys">{keys}</dl></div>'
    )


def _cells(row: _Row, original: _Row, test: _Row | None) -> list[tuple[str, str, str]]:
    """Head, value, and the line below it."""
    drop = _points(100 * (original["accuracy"] - row["accuracy"]))
    ratio = '<span class="ratio">{}×</span>'.format
    faster = f"{ratio(number(row['speed']))} as fast as fp32 ({text(original['reference'])})"
    smaller = f"{ratio(number(original['size_bytes'] / row['size_bytes']))} smaller"
    tested = f"{_points(100 * test['drop'])}, on {test['n']:,} rows, asked once" if test else "not asked yet"
    return [
        ("Median latency", f"{number(row['p50_ms'])} <small>ms</small>", faster),
        ("Model and tokenizer", f"{number(row['size_bytes'] / 1e6)} <small>MB</small>", smaller),
        ("Accuracy, validation", percent(row["accuracy"], 2), f"{drop}, on {original['n']:,} rows"),
        ("Accuracy, test", percent(test["accuracy"], 2) if test else NONE, tested),
    ]


def _points(drop: float) -> str:
    kind = "loss" if drop >= 0.005 else "ratio"
    return f'<span class="{kind}">{-drop:+.2f} points</span>'.replace(">-", ">−")


def _why(budget: dict[str, Any]) -> str:
    timed, sized = budget["latency_ms"] is not None, budget["size_mb"] is not None
    if timed and not sized:
        return "the smallest that keeps accuracy and latency"
    if sized and not timed:
        return "the fastest that keeps accuracy and size"
    return "the best product of speed and shrinkage that keeps the budget"


def _drawing(result: dict[str, Any], done: Sequence[_Row]) -> str:
    if not done:
        return ""
    best = _front(done)
    points = [_point(row, row["number"] in best, row["number"] == result["pick"]) for row in done]
    drawn = plot.pareto(points, *WIDE, "wide") + plot.pareto(points, *NARROW, "narrow")
    colours = {"onnx": "ONNX Runtime", "litert": "LiteRT", "other": "other engine"}
    used = [colour for colour in colours if any(point.colour == colour for point in points)]
    legend = [f'<li><i class="{colour}"></i>{colours[colour]}</li>' for colour in used]
    legend.append('<li><i class="dash"></i>front: nothing is both faster and better</li>')
    legend.append("<li>area: size of model and tokenizer</li>")
    if result["pick"] is not None:
        legend.append('<li><i class="halo"></i>ring: the pick</li>')
    return (
        '<figure class="card"><header><h3>Accuracy against latency</h3>'
        '<span class="hint">up and to the left is better · validation rows</span></header>'
        f'{drawn}<ul class="legend">{"".join(legend)}</ul></figure>'
    )


def _front(done: Sequence[_Row]) -> set[int]:
    """The front of the drawing, which has no third axis: accuracy and latency alone."""
    kept: list[_Row] = []
    for row in sorted(done, key=lambda row: (row["p50_ms"], -row["accuracy"])):
        if not kept or row["accuracy"] > kept[-1]["accuracy"]:
            kept.append(row)
    return {row["number"] for row in kept}


def _point(row: _Row, on_front: bool, picked: bool) -> plot.Point:
    p50 = row["p50_ms"]
    low, high = (p50 * row["speed"] / bound for bound in reversed(row["speed_ci95"]))
    lines = [
        f"{row['number']}: {row['name']}",
        f"accuracy {percent(row['accuracy'], 2)}",
        f"p50 {number(p50)} ms, {number(row['speed'])}× as fast as fp32",
        f"{number(row['size_bytes'] / 1e6)} MB",
    ]
    return plot.Point(
        key=f"t{row['number']}",
        label=f"{row['number']}",
        tip="\n".join(lines),
        colour=_colour(row),
        latency=(p50, p50, p50),
        at=p50,
        spread=(low, high),
        accuracy=row["accuracy"],
        size=row["size_bytes"] / 1e6,
        on_front=on_front,
        default=picked,
        facets={},
    )


_COLUMNS = [
    ("Trial", "low", "words"), ("p50, ms", "low", ""), ("Speed", "high", ""), ("Size, MB", "low", ""),
    ("Accuracy", "high", ""), ("Seconds", "low", ""), ("Budget", "low", "words why"),
]  # fmt: skip


def _table(result: dict[str, Any]) -> str:
    heads = "".join(
        f'<th scope="col" data-best="{best}"{_class(kind)}><button type="button">{name}</button></th>'
        for name, best, kind in _COLUMNS
    )
    options = "".join(f'<option value="{n}">{name}</option>' for n, (name, *_) in enumerate(_COLUMNS))
    lines = "".join(_line(row, result) for row in result["trials"])
    return (
        '<div class="card"><header><h3>All trials</h3>'
        f'<label class="sorter">Sort by<select>{options}</select></label></header>'
        '<div class="scroll" tabindex="0" role="region" aria-label="All trials"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div></div>"
    )


def _line(row: _Row, result: dict[str, Any]) -> str:
    badges = [
        ("pick", "good", row["number"] == result["pick"]),
        ("Pareto", "", row["number"] in result["pareto"]),
        ("failed", "warn", row["why"] is not None),
    ]
    shown = "".join(f'<span class="badge {kind}">{name}</span>' for name, kind, wanted in badges if wanted)
    name = f'<span class="name {_colour(row)}">{text(row["number"])}: {text(row["name"])}</span>'
    size = row["size_bytes"] / 1e6 if row["size_bytes"] else None
    speed = f"{number(row['speed'])}×<small>{_interval(row['speed_ci95'])}</small>" if row["speed"] else NONE
    cells = [
        (row["number"], f'{name}<span class="badges">{shown}</span>'),
        (row["p50_ms"], number(row["p50_ms"])),
        (row["speed"], speed),
        (size, number(size)),
        (row["accuracy"], percent(row["accuracy"], 2)),
        (row["seconds"], number(row["seconds"])),
        (row["why"] or _missed(row), text(row["why"] or _missed(row))),
    ]
    columns = "".join(
        f'<td data-label="{head}" data-value="{"" if value is None else text(value)}"'
        f"{_class(kind)}>{cell}</td>"
        for (head, _, kind), (value, cell) in zip(_COLUMNS, cells, strict=True)
    )
    return f'<tr data-key="t{row["number"]}">{columns}</tr>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _interval(pair: Sequence[float]) -> str:
    return f"{number(pair[0])}–{number(pair[1])}"


def _missed(row: _Row) -> str:
    words = {
        "drop": lambda over: f"{100 * over:.2f} points too much lost",
        "latency_ms": lambda over: f"{number(over)} ms over",
        "size_mb": lambda over: f"{number(over)} MB over",
        "speed": lambda over: "not surely faster than fp32",
    }
    return "; ".join(words[key](over) for key, over in (row["misses"] or {}).items()) or "keeps it"


def _foot(result: dict[str, Any]) -> str:
    original = result["original"]
    facts = {
        "The original": f"accuracy {percent(original['accuracy'], 2)} on {original['n']:,} validation rows; "
        f"fp32 ({original['reference']}): p50 {number(original['p50_ms'])} ms, "
        f"{number(original['size_bytes'] / 1e6)} MB with its tokenizer",
        "Latency": "batch 1, one thread, tokenization included, each trial interleaved with the original's "
        "fp32; p50 is the original's median over all those runs, divided by the trial's own speed",
        "Speed": "ratio of medians by whole rounds, 95% bootstrap interval",
        "Seconds": "making, training where there is any, and measuring",
        "Accuracy": "validation rows, all of them; the test rows are asked once, for the pick",
        "Pareto": "no other trial is as good in accuracy, latency and size, and better in one",
    }
    items = "".join(f"<dt>{key}</dt><dd>{text(value)}</dd>" for key, value in facts.items())
    return f'<div class="card"><h3>How it was measured</h3><dl class="list">{items}</dl></div>'
