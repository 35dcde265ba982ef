"""The analysis as one self-contained HTML page, in the look of the bench report, readable on a phone."""

from importlib.resources import files
from typing import Any

from apps.analysis import drop, effects_of, notes, others
from apps.analysis_plot import cost_svg, sensitivity_svg
from device_bench.figures import NONE, interval, number, percent, text

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}
figure svg{{width:100%;max-width:34rem;height:auto;margin:10px auto 0}}
.split{{align-items:start}}.split .card{{min-width:0}}
thead th{{padding:8px!important}}thead th:first-child{{padding-left:22px!important}}
thead th:last-child{{padding-right:22px!important}}
details summary{{cursor:pointer;min-height:40px;padding-top:8px}}
.keys{{margin-top:0}}td b{{font-weight:650}}
</style></head>
<body class="no-script"><header class="top"><h1>{title}</h1><p class="sub">{sub}</p></header><main>
"""
_FOOT = (
    "</main><footer>Made by <code>edgewise compress --analyse</code>. This page is one file and loads "
    "nothing.</footer></body></html>\n"
)


def page(result: dict[str, Any]) -> str:
    """HTML of a result of `apps.analysis.analyse`; all that comes from it is escaped."""
    style = files("device_bench").joinpath("page.css").read_text("utf-8")
    about = [result["checkpoint"]["name"], result["model_type"], result["machine"]["name"]]
    sense = result["sensitivity"]
    head = _HEAD.format(
        title="Where the cost is", sub=text(" · ".join(str(one) for one in about)), style=style
    )
    hint = f"with 95% intervals; baseline {sense['baseline']['value']:.4f} on {sense['n']} rows"
    body = [
        _keys(result),
        '<div class="split">',
        _card("Cost by part", "shares, and time at batch 1", cost_svg(result), "figure"),
        _card("What each part is worth", hint, sensitivity_svg(result), "figure"),
        "</div>",
        _card("Parts", "", _parts(result)),
        _card("Sensitivity", "points of accuracy lost ± standard error", _effects(result)),
        _card("Modules", "", f"<details><summary>Show all</summary>{_modules(result)}</details>"),
        _card("How it was measured", "", _method(result)),
    ]
    return head + "".join(body) + _FOOT


def _card(title: str, hint: str, body: str, tag: str = "section") -> str:
    head = f'<header><h3>{title}</h3><span class="hint">{text(hint)}</span></header>'
    return f'<{tag} class="card">{head}{body}</{tag}>'


def _keys(result: dict[str, Any]) -> str:
    whole = result["whole"]
    cells = [
        ("Time of one text", f"{number(whole['plain_ms'])} <small>ms</small>", _most(result, "ms")),
        ("FLOPs of one text", f"{number(whole['flops'] / 1e6)} <small>M</small>", _most(result, "flops")),
        ("Weights on disk", f"{number(whole['bytes'] / 1e6)} <small>MB</small>", _most(result, "bytes")),
        ("Parameters", f"{number(whole['parameters'] / 1e6)} <small>M</small>", _most(result, "parameters")),
    ]
    shown = "".join(f"<div><dt>{a}</dt><dd><b>{b}</b><span>{c}</span></dd></div>" for a, b, c in cells)
    return f'<div class="card"><dl class="keys">{shown}</dl></div>'


def _most(result: dict[str, Any], key: str) -> str:
    kind = max(result["kinds"], key=lambda one: one["share"][key])
    return f"{percent(kind['share'][key], 0)} of it {text(kind['kind'])}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    shown = "".join(f'<th scope="col"{" class=words" if not n else ""}>{h}</th>' for n, h in enumerate(heads))
    lines = []
    for row in rows:
        cells = [f'<td class=words><span class="name">{row[0]}</span></td>']
        cells += [f'<td data-label="{h}">{cell}</td>' for h, cell in zip(heads[1:], row[1:], strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Figures"><table>'
        f"<thead><tr>{shown}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _parts(result: dict[str, Any]) -> str:
    heads = ["Part", "Parameters, M", "File, MB", "MFLOPs", "Time, ms", "GFLOP/s"]
    rows = [
        [
            text(row["name"]),
            *(_shared(row, key, unit) for key, unit in (("parameters", 1e6), ("bytes", 1e6), ("flops", 1e6))),
            f"<b>{number(row['ms'])}</b><small>{percent(row['share']['ms'])} · "
            f"{interval(row['ci95'])}</small>",
            number(row["gflops_per_second"]),
        ]
        for row in result["parts"]
    ]
    rest = result["rest"]
    between = f"<b>{number(rest['ms'])}</b><small>{percent(rest['share'])}</small>"
    return _table(heads, [*rows, ["between parts", NONE, NONE, NONE, between, NONE]])


def _shared(row: dict[str, Any], key: str, unit: float) -> str:
    return f"{number(row[key] / unit)}<small>{percent(row['share'][key])}</small>"


def _effects(result: dict[str, Any]) -> str:
    names = [row["name"] for row in result["parts"]] + others(result)
    rows = []
    for name in names:
        found = effects_of(result, name)
        rows.append([text(name), *(_effect(found.get(change)) for change in ("int8", "int4", "cut"))])
    return _table(["Part", "int8", "int4", "Cut"], rows)


def _effect(one: dict[str, Any] | None) -> str:
    if one is None:
        return NONE
    shown = drop(one).strip()
    shown = f"<b>{shown}</b>" if one["signal"] else shown
    same, off = percent(one["agreement"]), percent(one["logits_error"])
    return f"{shown}<small>{same} same label, logits off by {off}</small>"


def _modules(result: dict[str, Any]) -> str:
    rows = [
        [text(one["module"]), text(one["type"]), f"{one['parameters']:,}", number(one["flops"] / 1e6)]
        for part in result["parts"]
        for one in part["modules"]
    ]
    return _table(["Module", "Type", "Parameters", "MFLOPs"], rows)


def _method(result: dict[str, Any]) -> str:
    device, data = result["machine"], result["data"]
    facts = {
        "What is said": notes(result),
        "FLOPs": "matrix products, a multiply-add as two, a mean over the texts; the head reads one token",
        "Time": "forward hooks around each part; tokenization not included; interval: 95%, of the median",
        "Rounding": "symmetric, one scale a row; int4 so too, which is coarser than groups of 32",
        "Cut": "attention or feed-forward network adds nothing (its norm stays); a layer is left out",
        "Rows": f"{data['name']}, {data['split']}",
        "Machine": f"{device['name']}, {device['cores']} cores, {device['os']}",
    }
    items = "".join(f"<dt>{key}</dt><dd>{text(value)}</dd>" for key, value in facts.items())
    return f'<dl class="list">{items}</dl>'
