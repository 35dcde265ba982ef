"""Whether a variant is still right: accuracy on a sample, and parity with its checkpoint's own outputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtimes.errors import EngineError, InputError


def accuracy(logits: np.ndarray, labels: Sequence[int]) -> dict[str, Any]:
    """The `metric` block from logits (n, C) and label indices (n,): the share of right top labels."""
    right = np.argmax(logits, axis=1) == np.asarray(labels)
    return {"name": "accuracy", "value": float(np.mean(right)), "n": len(right)}


def parity(logits: np.ndarray, golden: np.ndarray) -> dict[str, float]:
    """The `parity` block from two arrays of logits (n, C): a variant's and its checkpoint's.

    max_abs: the largest difference of a logit; cosine: the lowest cosine similarity of a row; agreement: the
    share of rows with the same top label. Raises EngineError where the shapes differ.
    """
    if logits.shape != golden.shape:
        raise EngineError(
            f"logits of shape {logits.shape} against golden {golden.shape}; build the bundle again"
        )
    a, b = logits.astype(np.float64), golden.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.sum(a * b, axis=1) / np.maximum(norms, 1e-12)
    return {
        "max_abs": float(np.max(np.abs(a - b))),
        "cosine": float(np.clip(np.min(cosine), -1.0, 1.0)),
        "agreement": float(np.mean(a.argmax(axis=1) == b.argmax(axis=1))),
    }


def finite_logits(model: Any, texts: Sequence[str]) -> np.ndarray:
    """`model.logits(texts)`, float32 (n, C). Raises EngineError where one of them is NaN or infinite."""
    logits = np.asarray(model.logits(list(texts)))
    bad = ~np.isfinite(logits).all(axis=1)
    if bad.any():
        raise EngineError(f"logits of text {int(np.argmax(bad)) + 1} are not finite; the variant is broken")
    return logits


def check_labels(texts: Sequence[str], labels: Sequence[int] | None, names: Sequence[str]) -> None:
    """Raises InputError unless `labels` has one index into `names` for each text."""
    if not texts:
        raise InputError("bench: no texts; give a sample to measure on")
    if labels is None:
        return
    if len(labels) != len(texts):
        raise InputError(f"bench: {len(texts)} texts but {len(labels)} labels; give one label for each text")
    wrong = [label for label in labels if not 0 <= int(label) < len(names)]
    if wrong:
        raise InputError(
            f"bench: label {wrong[0]} is not in 0..{len(names) - 1}; the sample is of another task"
        )
