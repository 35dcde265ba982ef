"""What the gate holds a detector's variants to: the same windows, and anomalies found in whole series."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from export.gate import Sample
from runtimes.errors import InputError
from runtimes.load import load
from trainers.detection_metrics import vus
from trainers.detectors import detectors
from trainers.injections import inject
from trainers.series import Series
from trainers.series_data import SeriesData, windows_of

MOST_SERIES, LEAST_SERIES = 16, 4
MOST_POINTS = 20_000  # of each series
METRIC = "vus_pr"
BASELINES = ("random", "z-score", "sub-pca")  # that are quick


def series_sample(data: SeriesData, most: int, model: Any) -> Sample:
    """At most `most` windows of what is not trained on, with the checkpoint's answers; and its VUS-PR.

    Raises InputError where no series has a rest of a window's length.
    """
    window, patch = model.limits["window"], model.limits["patch"]
    rows = windows_of(data, window, patch, rest=True)
    if not rows:
        raise InputError(f"no series goes on for {window} points after its training part; give longer ones")
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))
    inputs = [rows[row] for row in chosen]
    judged = series_to_judge(data, window)
    own = judge(model, judged)
    return Sample(inputs, None, model.outputs(inputs), (own, lambda other: judge(other, judged)))


def series_to_judge(data: SeriesData, window: int) -> list[Series]:
    """Some series with anomalies after their training part: labelled ones as they are, and with injected
    ones as often as it takes to have LEAST_SERIES. One event more or less must not decide."""
    step = max(1, len(data.series) // MOST_SERIES)
    usable = [
        one
        for one in data.series[::step][:MOST_SERIES]
        if one.train_end >= 3 * window and len(one) - one.train_end >= window
    ]
    found = []
    for copy in range(max(1, -(-LEAST_SERIES // max(1, len(usable))))):
        for number, one in enumerate(usable):
            start = max(0, one.train_end - MOST_POINTS // 2)
            short = one.cut(start, min(len(one), start + MOST_POINTS), one.train_end - start)
            known = short.labels is not None and bool(short.labels[short.train_end :].any())
            found.append(
                short if known and not copy else _injected(short, window, copy * len(usable) + number)
            )
    return found


def _injected(one: Series, window: int, seed: int) -> Series:
    values, made, _ = inject(one.values, length=window, seed=seed, skip=one.train_end)
    labels = made.astype(bool) if one.labels is None else made.astype(bool) | one.labels
    return replace(one, values=values, labels=labels)


def judge(model: Any, series: Sequence[Series]) -> dict[str, Any]:
    """Mean VUS-PR over series, each scored with a profile of its own training part; n is their points.

    Raises InputError where there is no anomaly to find.
    """
    return _judged(
        lambda one: model.score(one.values, model.fit(one.train, one.names, one.step)).score, series
    )


def _judged(scored: Callable[[Series], np.ndarray], series: Sequence[Series]) -> dict[str, Any]:
    found, points = [], 0
    for one in series:
        rest = slice(one.train_end, None)
        scores = scored(one)[rest]
        labels = one.labels[rest] if one.labels is not None else np.zeros(0, bool)
        if labels.any() and not labels.all():
            found.append(vus(labels, scores)[0])
            points += len(labels)
    if not found:
        raise InputError("no series is long enough to be judged: three windows to fit on, and a rest behind")
    return {"name": METRIC, "value": float(np.mean(found)), "n": points}


def judge_baselines(data: SeriesData, window: int) -> list[dict[str, Any]]:
    """The same figure of what needs no training worth the name, as rows with a `name` of their own."""
    series, known = series_to_judge(data, window), detectors()
    found = {name: _judged(known[name], series) for name in BASELINES}
    return [{"name": name, METRIC: row["value"], "n": row["n"]} for name, row in found.items()]


def judge_checkpoint(path: Path, data: SeriesData) -> dict[str, Any]:
    """The same figure of a checkpoint, in PyTorch."""
    model = load(path, threads=1)
    return judge(model, series_to_judge(data, model.limits["window"]))
