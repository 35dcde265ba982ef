"""What the report says about rows: names, numbers as text, the Pareto front, the default and why."""

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from device_bench.statistics import accuracy_interval

Row = dict[str, Any]
NONE = "–"
# Colour class of an engine → its name.
ENGINES = {
    "onnx": "ONNX Runtime",
    "litert": "LiteRT",
    "executorch": "ExecuTorch",
    "torch": "PyTorch (the checkpoint)",
    "other": "other engine",
}
PERPLEXITY = "perplexity"  # the lower the better, and no share
WITHIN = 0.01  # of accuracy: what the quickest variant may lose against the best one


def text(value: object) -> str:
    """Any value as HTML text: escaped, without control and direction-changing characters."""
    plain = "".join(c if unicodedata.category(c) not in {"Cc", "Cf", "Cs"} else " " for c in str(value))
    return escape(plain, quote=True)


def number(value: float | None) -> str:
    """Three significant digits, never in exponent form: 0.0841, 1.93, 21.4, 1024."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    if abs(value) < 1e-6:
        return "≤0.000001"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}"


def megabytes(size: int | None) -> float | None:
    """Bytes as MB of 10**6 bytes, as shops and phones count files."""
    return None if size is None else size / 1e6


def percent(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as per cent; what is not quite all never reads as 100%."""
    if value is None:
        return NONE
    shown = f"{value:.{digits}%}"
    if value < 1 and shown.startswith("100"):
        return f"{math.floor(value * 100 * 10**digits) / 10**digits}%"
    return shown


def interval(pair: Sequence[float] | None) -> str:
    """[low, high] as text."""
    return f"{number(pair[0])}–{number(pair[1])}" if pair else ""


def p50(row: Row) -> float | None:
    """Median latency in ms, None where it was not measured."""
    return row["latency_ms"]["p50"] if row["latency_ms"] else None


def accuracy(row: Row) -> float | None:
    """How good the row's metric is, the higher the better; None where it was not measured.

    Of a perplexity it is the mean log-likelihood of a token: a hundredth is 1% of perplexity.
    """
    if not row["metric"]:
        return None
    value: float = row["metric"]["value"]
    return -math.log(value) if row["metric"]["name"] == PERPLEXITY else value


def metric(row: Row | None) -> str:
    """The metric as per cent: two decimals only where enough texts stand behind the second."""
    if row is None or not row["metric"]:
        return NONE
    if row["metric"]["name"] == PERPLEXITY:
        return f"{row['metric']['value']:.2f}"
    return percent(row["metric"]["value"], 2 if row["metric"]["n"] >= 1000 else 1)


def tick(value: float, what: str) -> str:
    """A value of `accuracy` on an axis of the metric `what`."""
    return f"{math.exp(-value):.4g}" if what == PERPLEXITY else f"{value * 100:.4g}%"


def lost(points: float, what: str) -> str:
    """A difference of `accuracy`, in hundredths, in the metric's own words."""
    if what == PERPLEXITY:
        return f"{math.expm1(-points / 100) * 100:+.1f}%"
    return f"{points:+.2f} points"


def metric_name(rows: Iterable[Row]) -> str:
    """What the rows' metric is called: accuracy, where none was measured."""
    names = [str(row["metric"]["name"]) for row in rows if row["metric"]]
    return {"f1": "F1"}.get(names[0], names[0]) if names else "accuracy"


def margin(row: Row) -> float | None:
    """Half the 95% interval of an accuracy."""
    if not row["metric"] or row["metric"]["name"] != "accuracy" or row["metric"]["value"] > 1:
        return None
    low, high = accuracy_interval(row["metric"]["value"], row["metric"]["n"])
    return (high - low) / 2


def label(row: Row, rows: Iterable[Row]) -> str:
    """The variant's name, with bundle or threads where the rows differ in them."""
    rows = list(rows)
    name = str(row["variant"])
    if colour(row) == "torch":  # two checkpoints of one run are both pytorch-fp32
        name = str(row.get("entry") or name)
    elif any(other["bundle"] != row["bundle"] and other["variant"] == row["variant"] for other in rows):
        name = f"{row['bundle']}: {name}"
    if len({other["threads"] for other in rows} - {None}) > 1:
        name += f" ×{row['threads']}"
    return name


def colour(row: Row) -> str:
    """The colour class of the row's engine."""
    engine = str(row["engine"]).lower()
    for word in ("executorch", "torch", "onnx", "litert", "tflite"):  # the longer name first
        if word in engine:
            return "litert" if word == "tflite" else word
    return "other"


def front(rows: Sequence[Row], cost: Callable[[Row], float | None] = p50) -> list[Row]:
    """The rows that no other beats: none costs as little and is as accurate, and better in one of both.

    Sorted by cost (the median latency). Rows without a cost or a metric are left out.
    """
    known = [
        (price, good, row)
        for row in rows
        if (price := cost(row)) is not None and (good := accuracy(row)) is not None
    ]
    kept: list[Row] = []
    best = -math.inf
    for _, good, row in sorted(known, key=lambda one: (one[0], -one[1])):
        if good > best:
            kept.append(row)
            best = good
    return kept


def reference(rows: Sequence[Row]) -> Row | None:
    """The checkpoint in PyTorch among the rows."""
    return next((row for row in rows if colour(row) == "torch"), None)


def headline(rows: Sequence[Row]) -> Row | None:
    """The row to speak of first: the bundle's default, else the quickest edge variant of the front."""
    edge = [row for row in rows if colour(row) != "torch" and p50(row) is not None]
    edge.sort(key=lambda row: p50(row) or 0)
    named = [row for row in edge if row.get("default")]
    return next(iter([*named, *front(edge), *edge]), None)


def choice(rows: Sequence[Row]) -> Row | None:
    """The variant to take on a device: the quickest that is at most a point less accurate than the best.

    Among rows with times, of edge engines; without accuracies the quickest. None where nothing was timed.
    """
    edge = [row for row in rows if colour(row) != "torch" and p50(row) is not None]
    # A perplexity's are below 0: what was not measured counts for nothing, not for 0.
    known = [value for row in edge if (value := accuracy(row)) is not None]
    least = max(known, default=-math.inf) - WITHIN
    good = [row for row in edge if (value := accuracy(row)) is None or value >= least]
    return min(good, key=lambda row: p50(row) or 0, default=None)


def facets(row: Row) -> dict[str, str]:
    """What the page's filters ask of a row."""
    return {"engine": colour(row), "precision": str(row.get("precision") or NONE)}


def why(row: Row, rows: Sequence[Row]) -> str:
    """One or two sentences on the headline's row: how it stands among the others, and what beats it."""
    edge = [other for other in rows if colour(other) != "torch" and p50(other) is not None]
    ranks = [
        word
        for word, value in (("quickest", p50), ("smallest", _size), ("most accurate", _loss))
        if len(edge) > 1 and (mine := value(row)) is not None and all(_not_less(value(o), mine) for o in edge)
    ]
    said = (
        "The bundle's default" if row.get("default") else "The bundle names no default among these rows; this"
    )
    said += (
        f" is {_listed([f'the {word}' for word in ranks])} of {len(edge)} variants here."
        if ranks
        else (" is one of the measured variants." if len(edge) > 1 else " is the only variant measured here.")
    )
    better = [label(other, rows) for other in edge if other is not row and _beats(other, row)]
    if better:
        verb = "beats" if len(better) == 1 else "beat"
        said += f" {_listed(better)} {verb} it in this run: quicker, no larger, and at least as accurate."
    quicker = [other for other in edge if _quicker(other, row) and label(other, rows) not in better]
    said += "".join(f" {label(other, rows)} is quicker, but {_price(other, row)}." for other in quicker[:2])
    return said


def _quicker(one: Row, other: Row) -> bool:
    """Beyond the intervals of both."""
    return bool(one["latency_ms"]["ci95"][1] < other["latency_ms"]["ci95"][0])


def _price(one: Row, other: Row) -> str:
    """What `one` costs against `other`."""
    costs = []
    mine, theirs = accuracy(one), accuracy(other)
    if mine is not None and theirs is not None and mine < theirs:
        points = (mine - theirs) * 100
        worse = metric_name([one]) == PERPLEXITY
        costs.append(
            f"{lost(points, PERPLEXITY)} perplexity" if worse else f"{-points:.2f} points less accurate"
        )
    if (one["size_bytes"] or 0) > (other["size_bytes"] or 0):
        costs.append(f"{number(megabytes(one['size_bytes'] - (other['size_bytes'] or 0)))} MB larger")
    return _listed(costs) if costs else "its accuracy was not compared"


def _size(row: Row) -> float | None:
    return row["size_bytes"]


def _loss(row: Row) -> float | None:
    value = accuracy(row)
    return None if value is None else -value


def _not_less(value: float | None, than: float) -> bool:
    return value is None or value >= than


def _beats(one: Row, other: Row) -> bool:
    """Quicker beyond both intervals, at least as accurate, and no larger."""
    mine, theirs = accuracy(one), accuracy(other)
    if mine is None or theirs is None or one["tokenization"] != other["tokenization"]:
        return False
    return _quicker(one, other) and mine >= theirs and (one["size_bytes"] or 0) <= (other["size_bytes"] or 0)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
