"""Rows of the benchmark as tables: per family and overall, with intervals over series."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.detection_metrics import bootstrap

Row = dict[str, Any]
OVERALL = (
    ("vus_pr", "VUS-PR"), ("vus_roc", "VUS-ROC"), ("auc_pr", "AUC-PR"), ("auc_roc", "AUC-ROC"),
    ("best_f1", "best F1"), ("point_f1", "point F1"), ("event_precision", "event P"),
    ("event_recall", "event R"), ("event_f1", "event F1"),
)  # fmt: skip


def report(rows: Sequence[Row], beside: str = "sub-pca") -> str:
    """Markdown: VUS-PR per family and overall with 95% intervals, the other measures, alarms and delays; and
    series by series how each detector differs from the one called `beside`, and each exported variant from
    its checkpoint."""
    parts = [families_table(rows), measures_table(rows), alarms_table(rows)]
    names = _names(rows, "detector")
    pairs = [(beside, [name for name in names if name != beside and beside in names])]
    pairs += [(base, [name for name in names if name.startswith(f"{base}@")]) for base in names]
    parts += [differences_table(rows, base, others) for base, others in pairs if others]
    if len({row["fold"] for row in rows}) > 1:
        parts.append(folds_table(rows))
    return "\n\n".join(parts)


def _names(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def values(rows: Sequence[Row], key: str, **where: Any) -> np.ndarray:
    """What the rows with these properties say under `key`, in their order; None left out."""
    found = [row[key] for row in rows if all(row[name] == value for name, value in where.items())]
    return np.array([value for value in found if value is not None], float)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def _mean(found: np.ndarray, digits: int = 3) -> str:
    return f"{found.mean():.{digits}f}" if len(found) else "–"


def families_table(rows: Sequence[Row]) -> str:
    """VUS-PR: a line a family, a column a detector; below them the mean of all series with its interval, and
    the mean of the families. Series without an anomaly to find are not in it."""
    detectors = _names(rows, "detector")
    lines: list[list[str]] = []
    means: dict[str, list[float]] = {name: [] for name in detectors}
    for family in _names(rows, "family"):
        found = [values(rows, "vus_pr", family=family, detector=name) for name in detectors]
        if not len(found[0]):
            continue
        for name, one in zip(detectors, found, strict=True):
            means[name].append(float(one.mean()))
        best = max(cells.mean() for cells in found)
        cells = [f"**{_mean(one)}**" if one.mean() == best else _mean(one) for one in found]
        lines.append([family, str(len(found[0])), *cells])
    every = [values(rows, "vus_pr", detector=name) for name in detectors]
    lines.append(["all series", str(len(every[0])), *map(_mean, every)])
    lines.append(["95% interval", "", *map(_interval, every)])
    lines.append(["mean of families", str(len(lines) - 2), *(_mean(np.array(means[n])) for n in detectors)])
    return _table(["VUS-PR", "n", *detectors], lines)


def _interval(found: np.ndarray) -> str:
    if len(found) < 2:
        return "–"
    low, high = bootstrap(found)
    return f"{low:.3f}–{high:.3f}"


def measures_table(rows: Sequence[Row]) -> str:
    """The other measures, means over all series with an anomaly."""
    lines = [
        [name, *(_mean(values(rows, key, detector=name)) for key, _ in OVERALL)]
        for name in _names(rows, "detector")
    ]
    return _table(["detector", *(title for _, title in OVERALL)], lines)


def alarms_table(rows: Sequence[Row]) -> str:
    """At each detector's own threshold: false alarms a day as the median over series and where there is no
    anomaly at all, the share of events that were found, and the median delay to the first alarm in one."""
    lines = []
    for name in _names(rows, "detector"):
        mine = [row for row in rows if row["detector"] == name]
        calm = values([row for row in mine if not row["events"]], "false_alarms_a_day")
        alarms, delays = values(mine, "false_alarms_a_day"), values(mine, "delay_points")
        found, events = sum(row["found"] for row in mine), sum(row["events"] for row in mine)
        lines.append(
            [
                name,
                f"{np.median(alarms):.1f}" if len(alarms) else "–",
                f"{np.median(calm):.1f}" if len(calm) else "–",
                f"{found} of {events}",
                f"{np.median(delays):.0f}" if len(delays) else "–",
            ]
        )
    head = ["detector", "false alarms a day", "on calm series", "events found", "delay, points"]
    return _table(head, lines)


def differences_table(rows: Sequence[Row], beside: str, names: Sequence[str]) -> str:
    """VUS-PR of each of `names` less that of `beside` on the same series, with its interval."""
    other = {_place(row): row["vus_pr"] for row in rows if row["detector"] == beside}
    lines = []
    for name in names:
        mine = [row for row in rows if row["detector"] == name and row["vus_pr"] is not None]
        pairs = [(row["vus_pr"], other[_place(row)]) for row in mine if other.get(_place(row)) is not None]
        if not pairs:
            continue
        gaps = np.array([first - second for first, second in pairs])
        better = f"{int((gaps > 0).sum())} of {len(gaps)}"
        lines.append([name, f"{gaps.mean():+.3f}", _interval(gaps), better])
    return _table([f"VUS-PR less that of {beside}", "mean", "95% interval", "better on"], lines)


def _place(row: Row) -> tuple[str, str, int]:
    return row["family"], row["series"], row["fold"]


def folds_table(rows: Sequence[Row]) -> str:
    """VUS-PR by fold, in the order of time."""
    folds = sorted({row["fold"] for row in rows})
    lines = []
    for name in _names(rows, "detector"):
        cells = [values(rows, "vus_pr", detector=name, fold=fold) for fold in folds]
        lines.append([name, *(f"{_mean(cell)} (n={len(cell)})" for cell in cells)])
    return _table(["VUS-PR", *(f"part {fold + 1}" for fold in folds)], lines)
