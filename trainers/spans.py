"""Figures of a reader: exact match and F1 with intervals, the threshold of silence, calibrated confidence."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.spans import exact_match, f1

RESAMPLES = 1_000


def span_report(said: Sequence[str], answers: Sequence[Sequence[str]], seed: int = 0) -> dict[str, Any]:
    """n, exact_match and f1 in [0, 1] with 95% bootstrap intervals (over questions), and both for the
    questions that have an answer and those that have none ("" is right there)."""
    exact = np.array([exact_match(text, right) for text, right in zip(said, answers, strict=True)])
    overlap = np.array([f1(text, right) for text, right in zip(said, answers, strict=True)])
    some = np.array([bool(right) for right in answers], bool)
    report: dict[str, Any] = _figures(exact, overlap)
    if len(exact):
        rows = np.random.default_rng(seed).integers(0, len(exact), (RESAMPLES, len(exact)))
        for name, values in (("exact_match", exact), ("f1", overlap)):
            report[f"{name}_ci95"] = np.percentile(values[rows].mean(axis=1), [2.5, 97.5]).tolist()
    report["answerable"] = _figures(exact[some], overlap[some])
    report["unanswerable"] = _figures(exact[~some], overlap[~some])
    return report


def _figures(exact: np.ndarray, overlap: np.ndarray) -> dict[str, Any]:
    if not len(exact):
        return {"n": 0, "exact_match": None, "f1": None}
    return {"n": len(exact), "exact_match": float(exact.mean()), "f1": float(overlap.mean())}


def best_threshold(leads: Sequence[float], right: Sequence[float], impossible: Sequence[bool]) -> float:
    """The lead over "not here" from which on to answer, so that the mean of `right` is highest.

    `leads` (n,): how far the best span leads; `right` (n,): its F1; `impossible` (n,): whether nothing is to
    be found, so that silence is right. Of equally good ones the lowest; infinite where silence is best.
    """
    lead, gain, none = np.asarray(leads, float), np.asarray(right, float), np.asarray(impossible, bool)
    order = np.argsort(-lead, kind="stable")
    # From the surest on: answering turns silence (right where nothing is to be found) into the span's F1.
    total = np.concatenate([[0.0], np.cumsum(np.where(none, -1.0, gain)[order])])
    cuts = np.append(np.flatnonzero(np.diff(lead[order])) + 1, len(lead))  # never between equal leads
    best = max([0, *cuts.tolist()], key=lambda cut: (total[cut], cut))
    return float(lead[order[best - 1]]) if best else float("inf")


def calibrate(leads: Sequence[float], right: Sequence[bool]) -> dict[str, float]:
    """{"scale", "shift"} of a sigmoid (Platt 1999) that turns a lead into the probability of being right.

    Logistic regression of `right` (n,) on `leads` (n,). Raises InputError where all are right or all wrong.
    """
    from sklearn.linear_model import LogisticRegression

    x, y = np.asarray(leads, float), np.asarray(right, bool)
    if y.all() or not y.any():
        raise InputError("calibration: the answers are all right or all wrong; take more validation rows")
    centre, spread = float(x.mean()), float(x.std()) or 1.0
    found = LogisticRegression(C=1e3).fit(((x - centre) / spread)[:, None], y)
    scale = float(found.coef_[0, 0]) / spread
    return {"scale": scale, "shift": float(found.intercept_[0]) - scale * centre}
