"""Is it still the same model? Two sets of answers to the same inputs, compared."""

import numpy as np


def compare(reference: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Logits of the checkpoint against logits of a variant, both (n, labels).

    max_abs: largest absolute difference; cosine: of all logits as one vector; agreement: share of rows
    with the same best label. Answers that are not finite give the worst figures.
    """
    if reference.shape != answers.shape or not np.isfinite(answers).all():
        return {"max_abs": float("inf"), "cosine": -1.0, "agreement": 0.0}
    a, b = reference.astype(np.float64), answers.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return {
        "max_abs": float(np.abs(a - b).max(initial=0.0)),
        "cosine": float((a * b).sum() / norms) if norms else float(np.array_equal(a, b)),
        "agreement": float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
    }
