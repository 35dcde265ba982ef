"""A page about series before anything is trained: `python -m apps.monitor.explore FILE -o explore.html`.

Each series is drawn with its labelled windows and training part, and where it has them its cycle, its day,
its gaps, and what the reader had to put right. One self-contained file; nothing is fetched.
"""

import argparse
import html
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from runtimes.errors import EdgewiseError
from runtimes.files import write_atomic
from trainers.detectors import autocorrelation, period_of
from trainers.explore import STYLE, clean_axes, svg, table
from trainers.series import Series, SeriesConfig, complete, events, read_series
from trainers.series_sets import read_set, set_names

MAX_SERIES = 24
MAX_CHANNELS = 6
MAX_DRAWN = 60
_BINS = 400
_BLUE, _RED, _GREY = "#2563a8", "#c0392b", "#8b96a1"
_MORE = "h1,h2,p,td{overflow-wrap:anywhere}td,th{min-width:3rem}"
_MORE += "section{border-top:1px solid #dde3e9;margin-top:1.6rem}.wide{overflow-x:auto}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help=f"a file, a folder, or a set: {', '.join(set_names())}")
    parser.add_argument("-o", "--out", type=Path, default=Path("explore.html"))
    parser.add_argument("--series", default="", help="the column that tells several series apart")
    parser.add_argument("--zone", default="UTC", help="the time zone of times that carry none")
    options = parser.parse_args()
    try:
        config = replace(SeriesConfig(), series=options.series, zone=options.zone)
        named = options.data in set_names()
        found = read_set(options.data) if named else read_series(options.data, config)
        print(explore(options.data, found, options.out))
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def explore(name: str, found: Sequence[Series], out: Path) -> Path:
    """Write one page about the series of `name`; of many, those that are drawn are spread evenly."""
    channels = min(max(len(series.names) for series in found), MAX_CHANNELS)
    count = min(len(found), MAX_SERIES, MAX_DRAWN // channels)
    places = np.unique(np.linspace(0, len(found) - 1, count).astype(int))
    shown = [found[place] for place in places]
    rest = f"<p class=muted>{len(shown)} of {len(found)} series are drawn.</p>"
    parts = [
        f"<h1>{html.escape(name)}</h1>", "<h2>Series</h2>", _overview(found),
        rest if len(shown) < len(found) else "", *(_section(series) for series in shown),
    ]  # fmt: skip
    head = (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
    )
    title = f"<title>{html.escape(name)}</title><style>{STYLE}{_MORE}</style>"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, (head + title + "\n".join(parts) + "</html>\n").encode("utf-8"))
    return out


def _overview(found: Sequence[Series]) -> str:
    """One line a family: series, points, channels, step, share anomalous, events, missing."""
    rows: list[list[Any]] = []
    for family in dict.fromkeys(series.family for series in found):
        group = [series for series in found if series.family == family]
        points = sum(len(series) for series in group)
        labelled = [series.labels for series in group if series.labels is not None]
        marked = sum(int(labels.sum()) for labels in labelled)
        rows.append(
            [
                html.escape(family),
                len(group),
                f"{points:,}",
                max(len(series.names) for series in group),
                duration(float(np.median([series.step for series in group]))),
                f"{marked / points:.1%}" if labelled else "–",
                sum(len(events(labels)) for labels in labelled) if labelled else "–",
                f"{np.mean([np.isnan(series.values).mean() for series in group]):.1%}",
            ]
        )
    head = ["family", "series", "points", "channels", "step", "anomalous", "events", "missing"]
    return f"<div class=wide>{table(head, rows)}</div>"


def duration(seconds: float) -> str:
    """Seconds in words that a person reads at once: 5 min, 1.5 h, 8 ms."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= size * 0.999:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def _section(series: Series) -> str:
    told = [
        f"{len(series):,} points of {duration(series.step)}",
        f"{duration(len(series) * series.step)} in all",
        f"training part {series.train_end:,} points",
    ]
    told += [f"{count:,} {what}" for what, count in series.notes.items() if count]
    values = complete(series.values)
    found = list(map(period_of, values[: series.train_end].T))
    first = next((channel for channel, lag in enumerate(found) if lag), 0)
    period = found[first]
    if period:
        length = f"about {period} points ({duration(period * series.step)})"
        told.append(f"{html.escape(series.names[first])} repeats after {length}")
    return "\n".join(
        [
            f"<section><h2>{html.escape(series.name)}</h2><p class=muted>{'; '.join(told)}.</p>",
            _series_plot(series),
            _missing_note(series),
            _cycle_plot(series, values[:, first], period),
            "</section>",
        ]
    )


def _hours(series: Series) -> tuple[np.ndarray, str]:
    """(n,) the time since the start, in the unit that suits its length."""
    seconds = series.times - series.times[0]
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds[-1] > 3 * size:
            return seconds / size, unit
    return seconds, "seconds"


def _series_plot(series: Series) -> str:
    """The channels one above the other: the range of each stretch, so that no spike is lost in drawing."""
    shown = min(len(series.names), MAX_CHANNELS)
    figure = Figure(figsize=(6.4, 0.7 + 1.15 * shown))
    every: list[Any] = np.ravel([figure.subplots(shown, 1, sharex=True)]).tolist()
    times, unit = _hours(series)
    edges = np.unique(np.linspace(0, len(series), min(len(series), _BINS) + 1).astype(int))
    for axes, name, column in zip(every, series.names, series.values.T, strict=False):
        low, high = np.fmin.reduceat(column, edges[:-1]), np.fmax.reduceat(column, edges[:-1])
        axes.fill_between(times[edges[:-1]], low, high, color=_BLUE, lw=0.8)
        axes.set_ylabel(name if len(name) < 15 else name[:13] + "…", fontsize=7)
        axes.tick_params(labelsize=8)
        axes.axvspan(times[0], times[series.train_end - 1], color="#e9eef4", zorder=0)
        for start, end in events(series.labels) if series.labels is not None else ():
            axes.axvspan(times[start], times[end - 1], color=_RED, alpha=0.35, lw=0.8)
        clean_axes(axes, "y")
    every[-1].set_xlabel(f"{unit} since the start (grey: training part, red: labelled anomalies)", fontsize=9)
    more = len(series.names) - shown
    rest = f"<p class=muted>{more} more channels are not drawn.</p>"
    return svg(figure) + (rest if more else "")


def _missing_note(series: Series) -> str:
    """Where values are missing, by channel, with the longest gap; nothing where none are."""
    lines = []
    for name, column in zip(series.names, series.values.T, strict=True):
        gaps = events(np.isnan(column))
        if len(gaps):
            longest = int((gaps[:, 1] - gaps[:, 0]).max())
            share = f"{np.isnan(column).mean():.1%}"
            lines.append([html.escape(name), share, len(gaps), duration(longest * series.step)])
    return table(["missing in", "share", "gaps", "longest"], lines) if lines else ""


def _cycle_plot(series: Series, column: np.ndarray, period: int) -> str:
    """The autocorrelation of the channel that repeats, or the first, and its day where there are days."""
    if not column.std():
        return f"<p class=muted>Nothing moves in {html.escape(series.names[0])}.</p>"
    day = 86400 / series.step
    daily = series.step <= 3600 and len(series) >= 2 * day
    lags = int(min(len(series) // 2, max(3 * period, 1.2 * day if daily else 0, 300)))
    figure = Figure(figsize=(6.4, 1.9))
    every: list[Any] = np.ravel([figure.subplots(1, 2 if daily else 1)]).tolist()
    every[0].plot(autocorrelation(column, lags), color=_BLUE, lw=1)
    every[0].axhline(0, color=_GREY, lw=0.6)
    if period:
        every[0].axvline(period, color=_RED, lw=0.8, ls="--")
    every[0].set_title("likeness to itself, by lag in points", fontsize=9, loc="left")
    if daily:
        _day_plot(every[1], series, column)
    for axes in every:
        axes.tick_params(labelsize=8)
        clean_axes(axes, "y")
    return svg(figure)


def _day_plot(axes: Any, series: Series, column: np.ndarray) -> None:
    hour = ((series.times % 86400) // 3600).astype(int)
    groups = [column[hour == each] for each in range(24)]
    lines = [[np.quantile(group, q) if len(group) else np.nan for group in groups] for q in (0.1, 0.5, 0.9)]
    axes.fill_between(range(24), lines[0], lines[2], color=_BLUE, alpha=0.25, lw=0)
    axes.plot(range(24), lines[1], color=_BLUE, lw=1.2)
    axes.set_xticks([0, 6, 12, 18, 23])
    axes.set_title("its day, by hour UTC: middle and 80%", fontsize=9, loc="left")


if __name__ == "__main__":
    main()
