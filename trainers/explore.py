"""An exploratory page of a data set: rows per class, lengths, duplicates, most telling words, as plots."""

import html
import io
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from runtimes.files import write_atomic
from runtimes.text import clean
from trainers.data import Dataset, Split

matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: small, sharp, and found by a search
# So that the same data gives the same page.
matplotlib.rcParams["svg.hashsalt"] = "edgewise"

_WORD = re.compile(r"[^\W\d_]\w+(?:['’]\w+)?")
_COLOURS = {"train": "#2563a8", "validation": "#c9801e", "test": "#3d8b5f"}
_MAX_CLASSES = 60
_MAX_WORD_PLOTS = 20
STYLE = """
body{margin:0 auto;max-width:46rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:#1d2733}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2rem 0 .4rem}p{margin:.4rem 0}
.muted{color:#5b6875}svg{width:100%;max-width:36rem;height:auto;display:block}table{border-collapse:collapse;width:100%}
td,th{padding:.3rem .5rem;border-bottom:1px solid #dde3e9;text-align:right}
td:first-child,th:first-child{text-align:left}
.words{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:.5rem 1rem}
"""


def explore(dataset: Dataset, out_html: Path, tokenizer: Any = None) -> Path:
    """Write one self-contained page about `dataset` (raw or prepared). Lengths are in tokens with a
    `runtimes.text.Tokenizer`, else in words. The page holds single words of the texts, never whole texts."""
    cleaned = {name: Split([clean(t) for t in s.texts], s.labels) for name, s in dataset.splits.items()}
    lengths = {name: _lengths(split, tokenizer) for name, split in cleaned.items()}
    unit = "tokens" if tokenizer else "words"
    origin = " · ".join(
        str(dataset.source[k]) for k in ("place", "revision", "licence") if dataset.source.get(k)
    )
    parts = [
        f"<h1>{html.escape(dataset.name)}</h1><p class=muted>{html.escape(origin)}</p>",
        "<h2>Rows</h2>", _rows_table(cleaned),
        "<h2>Rows per class</h2>", _classes_plot(dataset.label_names, cleaned),
        f"<h2>Length in {unit}</h2>", _lengths_plot(lengths, unit), _length_advice(lengths["train"], unit),
        "<h2>Most telling words</h2>",
        "<p class=muted>Words that mark a class against all others in train: log-odds with an informative "
        "prior, as z-scores (Monroe et al. 2008).</p>",
        _words_plots(dataset.label_names, cleaned["train"]),
    ]  # fmt: skip
    head = (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
    )
    title = f"<title>{html.escape(dataset.name)}</title><style>{STYLE}</style>"
    out_html.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out_html, (head + title + "\n".join(parts) + "</html>\n").encode("utf-8"))
    return out_html


def _lengths(split: Split, tokenizer: Any) -> np.ndarray:
    if tokenizer is None:
        return np.array([len(text.split()) for text in split.texts])
    blocks = (split.texts[i : i + 4096] for i in range(0, len(split), 4096))
    return np.array([len(ids) for block in blocks for ids in tokenizer.encode(block)])


def svg(figure: Figure) -> str:
    """The figure as an <svg> element, the same bytes for the same drawing."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.05))


def clean_axes(axes: Any, grid: str = "x") -> None:
    """Two spines and a faint grid along one axis."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid, color="#e3e8ed")
    axes.set_axisbelow(True)


def table(head: list[str], rows: list[list[Any]]) -> str:
    """An HTML table; the cells are HTML already."""
    lines = ["<tr>" + "".join(f"<th>{cell}" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}" for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _rows_table(splits: dict[str, Split]) -> str:
    """Rows, empty, duplicate and contradictory ones per split, and the overlap with train."""
    train = set(splits["train"].texts)
    columns: list[list[Any]] = []
    for name, split in splits.items():
        texts = Counter(split.texts)
        labelled = Counter(text for text, _ in set(zip(split.texts, split.labels, strict=True)))
        overlap = "–" if name == "train" else sum(text in train for text in split.texts)
        twice = sum(count - 1 for count in texts.values())
        empty = sum(not text for text in split.texts)
        columns.append([len(split), empty, twice, sum(count > 1 for count in labelled.values()), overlap])
    names = ["rows", "empty", "repeated", "texts with two labels", "also in train"]
    rows = [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]
    return table(["after cleaning", *splits], rows)


def _short(name: str, width: int = 22) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def _classes_plot(names: list[str], splits: dict[str, Split]) -> str:
    counts = {name: Counter(split.labels) for name, split in splits.items()}
    order = sorted(range(len(names)), key=lambda label: -counts["train"][label])
    shown = order[:_MAX_CLASSES]
    figure = Figure(figsize=(4.2, 0.9 + 0.26 * len(shown)))
    axes = figure.subplots()
    left = np.zeros(len(shown))
    for split, count in counts.items():
        width = np.array([count[label] for label in shown])
        axes.barh(range(len(shown)), width, left=left, color=_COLOURS[split], label=split, height=0.7)
        left += width
    for i, label in enumerate(shown):
        axes.text(left[i], i, f" {counts['train'][label]:,}", va="center", fontsize=9, color="#5b6875")
    axes.set_yticks(range(len(shown)), [_short(names[label]) for label in shown])
    axes.invert_yaxis()
    axes.margins(x=0.16, y=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("rows (the figure beside the bar: train)")
    _legend(axes)
    clean_axes(axes)
    rest = f"<p class=muted>{len(order) - len(shown)} smaller classes are not shown.</p>"
    return svg(figure) + (rest if len(order) > len(shown) else "")


def _lengths_plot(lengths: dict[str, np.ndarray], unit: str) -> str:
    top = max(8, int(np.quantile(lengths["train"], 0.995)))
    bins = np.linspace(0, top, min(top, 40) + 1).tolist()
    figure = Figure(figsize=(4.2, 2.6))
    axes = figure.subplots()
    for name, values in lengths.items():
        share = np.full(len(values), 100 / max(len(values), 1))
        axes.hist(
            np.minimum(values, top),
            bins,
            weights=share,
            histtype="step",
            lw=1.6,
            color=_COLOURS[name],
            label=name,
        )
    for quantile in (0.5, 0.9, 0.99):
        at = np.quantile(lengths["train"], quantile)
        axes.axvline(at, color="#8b96a1", lw=0.8, ls="--")
        axes.text(
            at, 1.0, f" {quantile:.0%}", fontsize=8, color="#5b6875", transform=axes.get_xaxis_transform()
        )
    axes.set_xlabel(f"{unit} in a text (longer ones in the last bar)")
    axes.set_ylabel("% of rows")
    _legend(axes)
    clean_axes(axes, "y")
    return svg(figure)


def _length_advice(train: np.ndarray, unit: str) -> str:
    shares = (0.5, 0.9, 0.95, 0.99, 1.0)
    rows = [[f"{share:.0%}", int(np.quantile(train, share))] for share in shares]
    shares_table = table(["of the train rows have at most", unit], rows)
    # Words count about 1.3 tokens each in English, and two special tokens come on top.
    wanted = np.quantile(train, 0.95) * (1 if unit == "tokens" else 1.3) + (0 if unit == "tokens" else 2)
    advice = min(512, max(16, 16 * math.ceil(wanted / 16)))
    return f"{shares_table}<p>A <b>max_tokens of {advice}</b> keeps about 95% of the train texts whole.</p>"


def telling_words(split: Split, classes: int, top: int = 10) -> list[list[tuple[str, float]]]:
    """For each class the words with the highest z-score of log-odds with an informative Dirichlet prior.

    Monroe, Colaresi and Quinn 2008, "Fightin' Words", equations 16 and 22; a word counts once a text.
    """
    counts = [Counter[str]() for _ in range(classes)]
    for text, label in zip(split.texts, split.labels, strict=True):
        counts[label].update({word.lower() for word in _WORD.findall(text)})
    every = sum(counts, Counter[str]())
    vocabulary = [word for word, count in every.items() if count >= 3]
    table = np.array([[count[word] for word in vocabulary] for count in counts], float)
    if not vocabulary:
        return [[] for _ in range(classes)]
    whole = table.sum(axis=0)
    prior = whole / whole.sum() * 500
    best: list[list[tuple[str, float]]] = []
    for row in table:
        here, there = row + prior, whole - row + prior
        odds = np.log(here / (here.sum() - here)) - np.log(there / (there.sum() - there))
        z = odds / np.sqrt(1 / here + 1 / there)
        best.append([(vocabulary[i], float(z[i])) for i in np.argsort(-z, kind="stable")[:top] if z[i] > 0])
    return best


def _words_plots(names: list[str], train: Split) -> str:
    sizes = Counter(train.labels)
    order = sorted(range(len(names)), key=lambda label: -sizes[label])[:_MAX_WORD_PLOTS]
    best = telling_words(train, len(names))
    plots = [_words_plot(names[label], best[label]) for label in order if best[label]]
    rest = f"<p class=muted>The {len(names) - len(order)} smallest classes are not shown.</p>"
    return f"<div class=words>{''.join(plots)}</div>" + (rest if len(names) > len(order) else "")


def _words_plot(name: str, words: list[tuple[str, float]]) -> str:
    figure = Figure(figsize=(3.4, 0.5 + 0.21 * len(words)))
    axes = figure.subplots()
    axes.barh(range(len(words)), [z for _, z in words], color="#2563a8", height=0.65)
    axes.set_yticks(range(len(words)), [_short(word, 18) for word, _ in words], fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
    axes.set_title(_short(name, 32), fontsize=10, loc="left")
    clean_axes(axes)
    return f"<div>{svg(figure)}</div>"
