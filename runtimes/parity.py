"""Is it still the same model? Two sets of answers to the same inputs, compared."""

from collections.abc import Sequence
from typing import Any

import numpy as np

WORST = {"max_abs": float("inf"), "cosine": -1.0, "agreement": 0.0}


def compare(
    reference: Sequence[np.ndarray], answers: Sequence[np.ndarray], wanted: Sequence[Any], got: Sequence[Any]
) -> dict[str, float]:
    """Outputs of the checkpoint against outputs of a variant, and the verdicts that follow from each.

    max_abs: largest absolute difference; cosine: of all outputs as one vector; agreement: share of inputs
    with the same verdict. Outputs of other shapes, or that are not finite, give the worst figures.
    """
    same = len(reference) == len(answers) and all(
        a.shape == b.shape and np.isfinite(b).all() for a, b in zip(reference, answers, strict=True)
    )
    if not same or not len(reference) or len(wanted) != len(got):
        return dict(WORST)
    a, b = (
        np.concatenate([np.ravel(one) for one in rows]).astype(np.float64) for rows in (reference, answers)
    )
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return {
        "max_abs": float(np.abs(a - b).max(initial=0.0)),
        "cosine": float((a * b).sum() / norms) if norms else float(np.array_equal(a, b)),
        "agreement": float(np.mean([one == other for one, other in zip(wanted, got, strict=True)])),
    }


def greedy_agreement(wanted: Sequence[Sequence[int]], got: Sequence[Sequence[int]]) -> float:
    """What part of a text two greedy writers share before they part, as a mean over prompts.

    Token ids of each; after the first different one nothing can be compared.
    """
    if not len(wanted) or len(wanted) != len(got):
        return 0.0
    shared = []
    for one, other in zip(wanted, got, strict=True):
        longest = max(len(one), len(other))
        pairs = zip(one, other, strict=False)
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
        shared.append(same / longest if longest else 1.0)
    return float(np.mean(shared))
