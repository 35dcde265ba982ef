"""`python -m apps.language.align.page RESULTS`: the report, one self-contained HTML page in the look of the
bench report. `--markdown` prints the tables for the docs instead. Made from result files, at any time."""

import argparse
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from apps.language.align import plots, tables
from apps.language.align.results import (
    NAMES,
    ROWS,
    Found,
    changed_rows,
    expected,
    find_results,
    rows_of,
    verdicts,
)
from device_bench.figures import number, text
from runtimes.errors import EdgewiseError
from runtimes.files import write_atomic

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}
figure svg{{width:100%;max-width:34rem;height:auto;margin:10px auto 0}}
.split{{align-items:start}}.split .card{{min-width:0}}
h2{{margin:34px 0 0}}h2 .badge{{margin-left:8px;vertical-align:middle}}
thead th{{padding:8px!important}}thead th:first-child{{padding-left:22px!important}}
thead th:last-child{{padding-right:22px!important}}
details summary{{cursor:pointer;min-height:40px;padding-top:8px}}
.keys{{margin-top:0}}td b{{font-weight:650}}
.said p{{margin:6px 0;overflow-wrap:anywhere}}.said b{{display:inline-block;min-width:4.5em}}
</style></head>
<body class="no-script"><header class="top"><h1>{title}</h1><p class="sub">{sub}</p></header><main>
"""
_FOOT = (
    "</main><footer>Made by <code>python -m apps.language.align.page</code>. This page is one file and loads "
    "nothing.</footer></body></html>\n"
)
METHOD = {
    "Budget": "T tokens through the policy in training, padding not counted. The start is T of SFT from the "
    "base, one for each seed; SFT, PPO and DPO go on from it for T; ORPO takes 2T from the base",
    "Wins": "each held-out prompt is one duel of two sampled answers; a tie counts half. The "
    "judge was trained on other rows, by another seed, than the reward; TF-IDF is a judge of another kind",
    "At equal length": "logistic regression of the duels on tanh(length difference / its standard "
    "deviation), read at 0, as AlpacaEval 2 does",
    "Intervals": "95%, bootstrap over seeds and prompts, both drawn anew; a few seeds say little of others",
    "p": "paired permutation test on the judge's scores (signs of prompts flipped), Holm's correction",
    "KL": "to the shared start, on the model's own answers, whole distributions, temperature 1",
    "Time, memory": "of training alone; on a GPU what was allocated at most, on a CPU the whole process",
    "Expansions": "PPO: Proximal Policy Optimization. DPO: Direct Preference Optimization. ORPO: Odds Ratio "
    "Preference Optimization. SFT: supervised fine-tuning",
}
SAMPLES = 6  # prompts whose answers are shown side by side


def page(comparisons: Sequence[Found]) -> str:
    """HTML of one or more comparisons; all that comes from them is escaped."""
    style = files("device_bench").joinpath("page.css").read_text("utf-8")
    names = " · ".join(found.name for found in comparisons)
    head = _HEAD.format(title="SFT, PPO, DPO and ORPO compared", sub=text(names), style=style)
    return (
        head
        + "".join(_comparison(found) for found in comparisons)
        + _card("How it was measured", "", _method())
        + _FOOT
    )


def _comparison(found: Found) -> str:
    rows, changed = rows_of(found), changed_rows(found)
    label = f'<span class="badge warn">{text(found.config["label"])}</span>' if found.config["label"] else ""
    results = _table(tables.RESULT_HEADS, rows, tables.result_cells)
    told = _table(tables.VERDICT_HEADS, verdicts(found), tables.verdict_cells)
    costs = _table(tables.COST_HEADS, rows, tables.cost_cells)
    parts = [
        f"<h2>{text(found.name)}{label}</h2>",
        f'<p class="facts">{text(tables.facts(found))}</p>',
        _keys(found, rows),
        _card("What each method brings", "95% intervals over seeds and prompts", results),
        '<div class="split">',
        _card("Wins over SFT", "the judge's duels; dots: seeds", plots.win_rates(rows), "figure"),
        _card(
            "Reward against distance",
            "one point a run; pale: one setting changed",
            plots.frontier(found),
            "figure",
        ),
        "</div>",
        _card("Verdicts", "only where the interval excludes 50%", told),
        _card("What each method costs", "means over the seeds", costs),
        '<div class="split">',
        _card("Reward while learning", "prompts that are watched", plots.curves(found), "figure"),
        _card("Memory", "", plots.memory(rows), "figure"),
        "</div>",
        _losses(found),
        *_changed(changed),
        _card("What they say", "the first held-out prompts, first seed", _said(found)),
        _left_out(found),
    ]
    return "".join(parts)


def _changed(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    figures = _table(tables.CHANGE_HEADS, rows, tables.change_cells)
    return [
        _card("One setting changed", "one seed, intervals over prompts", plots.changes(rows), "figure"),
        _card("The same in figures", "", figures),
    ]


def _card(title: str, hint: str, body: str, tag: str = "section") -> str:
    head = f'<header><h3>{title}</h3><span class="hint">{text(hint)}</span></header>'
    return f'<{tag} class="card">{head}{body}</{tag}>'


def _keys(found: Found, rows: list[dict[str, Any]]) -> str:
    good = dict(expected(found))
    cells = []
    for row in rows:
        won = row["wins"]["judge"]
        if row["method"] in good and won:
            word = "at least 60%, interval above 50%" if good[row["method"]] else "not 60% with certainty"
            shown = f"<b>{100 * won.rate.value:.1f}<small>%</small></b>"
            between = f"{100 * won.rate.low:.1f}–{100 * won.rate.high:.1f}"
            told = f"<dd>{shown}<span>{between}; {word}</span></dd>"
            cells.append(f"<div><dt>{row['name']} wins over SFT</dt>{told}</div>")
    return f'<div class="card"><dl class="keys">{"".join(cells)}</dl></div>' if cells else ""


def _table(heads: list[str], rows: list[dict[str, Any]], cells_of: Any) -> str:
    shown = "".join(f'<th scope="col"{" class=words" if not n else ""}>{h}</th>' for n, h in enumerate(heads))
    lines = []
    for row in rows:
        first, *rest = (text(cell) for cell in cells_of(row))
        cells = [f'<td class=words><span class="name">{first}</span></td>']
        cells += [f'<td data-label="{h}">{cell}</td>' for h, cell in zip(heads[1:], rest, strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Figures"><table>'
        f"<thead><tr>{shown}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _losses(found: Found) -> str:
    shown = "".join(
        f"<figure>{plots.losses(found, method)}</figure>"
        for method in ("sft", "ppo", "dpo", "orpo")
        if any(run["training"].get("curve") for run in found.of(method))
    )
    hint = "a line for each seed; each method's loss is its own"
    return _card("Training loss", hint, f'<div class="split">{shown}</div>') if shown else ""


def _said(found: Found) -> str:
    """The first prompts are shown, whatever was answered: none is picked."""
    firsts = {m: found.of(m)[0] for m in ROWS if found.of(m)}
    blocks = []
    for i in range(SAMPLES):
        lines = [
            f"<p><b>{NAMES[m]}</b> {text(run['answers']['text'][i])} "
            f"<small>({number(run['scores']['judge'][i])})</small></p>"
            for m, run in firsts.items() if i < len(run["answers"]["text"])
        ]  # fmt: skip
        blocks.append(f'<div class="said">{"".join(lines)}</div><hr>')
    return f"<details><summary>Show (the judge's score in brackets)</summary>{''.join(blocks)}</details>"


def _left_out(found: Found) -> str:
    if not found.left_out:
        return ""
    items = "".join(f"<dt>{text(n)}</dt><dd>{text(w)}</dd>" for n, w in sorted(found.left_out.items()))
    return _card("Left out", "runs that did not come about", f'<dl class="list">{items}</dl>')


def _method() -> str:
    items = "".join(f"<dt>{key}</dt><dd>{text(value)}</dd>" for key, value in METHOD.items())
    return f'<dl class="list">{items}</dl>'


def write_page(results: Path, out: Path) -> Path:
    """The report of all comparisons below `results`, as `out`. InputError where there are none."""
    write_atomic(out, page(find_results(results)).encode("utf-8"))
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m apps.language.align.page", description=__doc__)
    parser.add_argument(
        "results", type=Path, help="a folder that holds results, perhaps of several comparisons"
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables for the docs")
    parser.add_argument("--out", type=Path, default=Path("align.html"))
    told = parser.parse_args(arguments)
    try:
        if told.markdown:
            print("\n".join(tables.markdown(found) for found in find_results(told.results)))
        else:
            print(write_page(told.results, told.out))
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
