"""Whether a variant is still right: accuracy on a sample, and parity with its checkpoint's own outputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtimes.errors import EngineError, InputError
from runtimes.parity import compare


def accuracy(logits: np.ndarray, labels: Sequence[int]) -> dict[str, Any]:
    """The `metric` block from logits (n, C) and label indices (n,): the share of right top labels."""
    right = np.argmax(logits, axis=1) == np.asarray(labels)
    return {"name": "accuracy", "value": float(np.mean(right)), "n": len(right)}


def parity(logits: np.ndarray, golden: np.ndarray) -> dict[str, float]:
    """The `parity` block: a variant's logits (n, C) against its checkpoint's, as the gate compares them.

    Raises EngineError where the shapes differ.
    """
    if logits.shape != golden.shape:
        raise EngineError(
            f"logits of shape {logits.shape} against golden {golden.shape}; build the bundle again"
        )
    return compare(golden, logits)


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
