"""Figures of a classifier, from logits and labels (numpy only)."""

from typing import Any

import numpy as np

from runtimes.tasks.classify import softmax

Labels = np.ndarray | list[int]


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts, int64 (classes, classes): rows are the true labels, columns the predicted."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (np.asarray(labels, np.int64), np.asarray(predicted, np.int64)), 1)
    return table


def classification_report(logits: np.ndarray, labels: Labels) -> dict[str, Any]:
    """accuracy, macro {precision, recall, f1}, per_class [{precision, recall, f1, n}], confusion, n.

    `logits` (n, C) are any scores whose largest wins; `labels` (n,) integers. As in scikit-learn, a class
    that is never predicted has precision 0, and the macro means run over the classes that occur at all.
    """
    scores, truth = np.asarray(logits), np.asarray(labels, np.int64)
    table = confusion(scores.argmax(axis=1), truth, scores.shape[1])
    right, true, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    precision = right / np.maximum(said, 1)
    recall = right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + said, 1)
    occurs = (true + said) > 0
    names, values = ("precision", "recall", "f1"), (precision, recall, f1)

    def mean(value: np.ndarray) -> float:
        return float(value[occurs].mean()) if occurs.any() else 0.0

    return {
        "n": len(truth),
        "accuracy": float(right.sum() / max(len(truth), 1)),
        "macro": {name: mean(value) for name, value in zip(names, values, strict=True)},
        "per_class": [
            {"precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
            for p, r, f, n in zip(precision, recall, f1, true, strict=True)
        ],
        "confusion": table.tolist(),
    }


def confident_errors(
    logits: np.ndarray, labels: np.ndarray | list[int], top: int = 20
) -> list[dict[str, Any]]:
    """The wrong answers with the highest probability: row number, label, predicted, score. No texts."""
    scores, truth = softmax(logits), np.asarray(labels, np.int64)
    if not len(truth):
        return []
    predicted = scores.argmax(axis=1)
    best = scores[np.arange(len(truth)), predicted]
    wrong = np.flatnonzero(predicted != truth)
    order = wrong[np.argsort(-best[wrong], kind="stable")][:top]
    return [
        {"row": int(i), "label": int(truth[i]), "predicted": int(predicted[i]), "score": float(best[i])}
        for i in order
    ]
