"""How well scores find anomalies: volumes and areas under curves, points, events, false alarms, delays.

Nothing here is point-adjusted: an adjusted F1 takes a whole event as found by one lucky point, so that random
scores come out ahead of real detectors (Kim et al. 2022). `scores` are (n,) floats, higher is stranger; NaN
(no score) is no alarm and ranks below all others. `labels` are (n,) bools, True in an anomaly.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.errors import InputError
from trainers.series import events

BUFFER = 100
"""The largest buffer around an event, in points, that VUS averages over."""


@dataclass(frozen=True)
class Rates:
    """Precision, recall and their harmonic mean F1, each 0 to 1; 0 where nothing was there to count."""

    precision: float
    recall: float
    f1: float


def measure(
    labels: np.ndarray, scores: np.ndarray, threshold: float, step: float, buffer: int = BUFFER
) -> dict[str, Any]:
    """All measures of one series as a plain row; an alarm is a score at or over `threshold`, as
    the service has it; `step` is in seconds.

    What is not defined (curves without an anomaly, delays without an event that has one) is None.
    """
    alarms = np.asarray(scores, np.float64) >= threshold
    labels, ranked = _checked(labels, scores)
    row: dict[str, Any] = {
        "points": len(labels),
        "anomalous": int(labels.sum()),
        "events": len(events(labels)),
    }
    mixed = labels.any() and not labels.all()
    vus_pr, vus_roc = vus(labels, ranked, buffer) if mixed else (None, None)
    row |= {"vus_pr": vus_pr, "vus_roc": vus_roc}
    row |= {"auc_pr": auc_pr(labels, ranked) if mixed else None}
    row |= {"auc_roc": auc_roc(labels, ranked) if mixed else None}
    best = best_f1(labels, scores) if mixed else (None, None)
    row |= {"best_f1": best[0], "threshold": float(threshold)}
    for kind, rates in (("point", point_rates(labels, alarms)), ("event", event_rates(labels, alarms))):
        values = (rates.precision, rates.recall, rates.f1) if labels.any() else (None, None, None)
        row |= dict(zip((f"{kind}_precision", f"{kind}_recall", f"{kind}_f1"), values, strict=True))
    delays = detection_delays(labels, alarms)
    known = delays[~np.isnan(delays)]
    row["false_alarms_a_day"] = false_alarms_a_day(labels, alarms, step)
    row["found"] = found_events(labels, alarms)
    row["delay_points"] = float(np.median(known)) if len(known) else None
    row["delay_s"] = float(np.median(known)) * step if len(known) else None
    return row


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels, bool), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 1 or not len(labels):
        raise InputError(f"labels are {labels.shape} and scores {scores.shape}; one of each for every point")
    known = ~np.isnan(scores)
    if np.isinf(scores).any():
        raise InputError("an infinite score; scores are finite, NaN where there is none")
    lowest = np.nextafter(scores[known].min(), -np.inf) if known.any() else 0.0
    return labels, np.where(known, scores, lowest)


# areas and volumes


def vus(labels: np.ndarray, scores: np.ndarray, buffer: int = BUFFER) -> tuple[float, float]:
    """VUS-PR and VUS-ROC: the areas under the range-based PR and ROC curves, averaged over buffers of 0 to
    `buffer` points round each event (Paparrizos et al. 2022, VLDB 15(11), section 4).

    A point in the buffer at distance d has the label sqrt(1 - d / length) and recall is weighed by the share
    of events that are touched. All distinct scores are thresholds (the authors' code samples 250), and the
    PR area is summed in steps like average precision, so that ties gain nothing. InputError without events.
    """
    labels, scores = _checked(labels, scores)
    if not labels.any() or labels.all():
        raise InputError("volumes need labels of both kinds; this series has one kind only")
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    lasts = np.flatnonzero(np.append(falling[1:] < falling[:-1], True))
    ranks = np.empty(len(scores), np.int64)
    ranks[order] = np.repeat(np.arange(len(lasts)), np.diff(lasts, prepend=-1))
    areas = [_areas(labels, length, order, lasts, ranks) for length in range(buffer + 1)]
    pr, roc = np.mean(areas, axis=0)
    return float(pr), float(roc)


def _areas(
    labels: np.ndarray, length: int, order: np.ndarray, lasts: np.ndarray, ranks: np.ndarray
) -> tuple[float, float]:
    """The two areas at one buffer length. `lasts` are the ends of the thresholds' groups in `order`, `ranks`
    the threshold that each point falls under."""
    soft = soft_labels(labels, length)
    hits = np.cumsum(soft[order])[lasts]
    touched = events(soft > 0)
    first = np.array([ranks[start:end].min() for start, end in touched])
    existence = np.cumsum(np.bincount(first, minlength=len(lasts))) / len(touched)
    positives = (labels.sum() + soft.sum()) / 2
    recall = np.minimum(hits / positives, 1) * existence
    taken = lasts + 1.0
    pr = float(np.sum(np.diff(recall, prepend=0) * hits / taken))
    fall_out = np.minimum((taken - hits) / (len(labels) - positives), 1)
    x, y = np.concatenate([[0], fall_out, [1]]), np.concatenate([[0], recall, [1]])
    return pr, float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def soft_labels(labels: np.ndarray, length: int) -> np.ndarray:
    """(n,) labels 0 to 1 with slopes of half of `length` points on both sides of each event, as in the
    authors' code: the slope after an event is one point shorter, and a length of 1 has none."""
    soft = labels.astype(np.float64)
    half = length // 2
    if not half:
        return soft
    slope = np.sqrt(1 - np.arange(half + 1) / length)
    for start, end in events(labels):
        before = soft[max(start - half, 0) : start]
        before += slope[len(before) : 0 : -1]
        after = soft[end : end + half - 1]
        after += slope[1 : len(after) + 1]
    return np.minimum(soft, 1)


def auc_pr(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision over the points."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_checked(labels, scores)))


def auc_roc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The area under the points' ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_checked(labels, scores)))


# decisions


def _rates(hits: float, said: float, there: float, found: float) -> Rates:
    precision = hits / said if said else 0.0
    recall = found / there if there else 0.0
    return Rates(precision, recall, 2 * precision * recall / (precision + recall) if hits and found else 0.0)


def point_rates(labels: np.ndarray, alarms: np.ndarray) -> Rates:
    """Over points, not adjusted."""
    hits = int((labels & alarms).sum())
    return _rates(hits, int(alarms.sum()), int(labels.sum()), hits)


def event_rates(labels: np.ndarray, alarms: np.ndarray) -> Rates:
    """Over events: an event is found if one point in it is alarmed, and a run of alarms is right if it
    touches an event."""
    said, there = events(alarms), events(labels)
    right = sum(bool(labels[start:end].any()) for start, end in said)
    return _rates(right, len(said), len(there), found_events(labels, alarms))


def found_events(labels: np.ndarray, alarms: np.ndarray) -> int:
    """Events with an alarmed point in them."""
    return sum(bool(alarms[start:end].any()) for start, end in events(labels))


def best_f1(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The best point F1 that any threshold gives, and that threshold: alarms are scores at or over it, never
    points without one. It knows the labels, so it flatters every detector alike."""
    from sklearn.metrics import precision_recall_curve

    known = ~np.isnan(scores)
    if not known.any():
        return 0.0, float("inf")
    precision, recall, thresholds = precision_recall_curve(*_checked(labels, scores))
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    lowest = 0 if known.all() else 1  # below the known ones is no threshold
    best = lowest + int(np.argmax(f1[lowest:-1]))
    return float(f1[best]), float(thresholds[best])


def false_alarms_a_day(labels: np.ndarray, alarms: np.ndarray, step: float) -> float:
    """Runs of alarms that touch no event, per day of normal points of `step` seconds."""
    wrong = sum(not labels[start:end].any() for start, end in events(alarms))
    days = float((~labels).sum()) * step / 86400
    return wrong / days if days else 0.0


def detection_delays(labels: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    """(events,) points from an event's start to the first alarm in it; NaN where it was missed, and where the
    alarm was on before it: nothing tells how soon that event would have been found."""
    delays = [
        float(alarms[start:end].argmax())
        if alarms[start:end].any() and not (start and alarms[start - 1] and alarms[start])
        else np.nan
        for start, end in events(labels)
    ]
    return np.array(delays, float)


def bootstrap(values: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95% interval of the mean of `values` (n,), by drawing series with replacement."""
    generator = np.random.default_rng(seed)
    means = values[generator.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
