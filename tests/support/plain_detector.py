"""A detector without training: the window again by its four lowest frequencies, and its last value on."""

import numpy as np

from runtimes.tasks.detect import Detector

WINDOW, PATCH = 16, 4


class Frequencies:
    """A session of numpy alone; row by row, so that a batch gives what single windows give."""

    lengths: list[int] | None = None

    def __init__(self) -> None:
        places = np.arange(WINDOW)
        self._basis = np.stack([np.cos(np.pi * k * (places + 0.5) / WINDOW) for k in range(4)])
        self._basis /= np.linalg.norm(self._basis, axis=1, keepdims=True)
        self.calls: list[int] = []

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = feeds["values"].astype(float)
        self.calls.append(len(values))
        again = np.einsum("bw,kw,kv->bv", values, self._basis, self._basis)
        on = np.repeat(values[:, -1:], PATCH, axis=1)
        return {"expected": np.concatenate([again, on], axis=1).astype(np.float32)}

    def describe(self) -> dict[str, object]:
        return {"engine": "numpy"}


def plain_detector() -> Detector:
    limits = {"window": WINDOW, "patch": PATCH, "max_channels": 8, "max_batch": 32}
    return Detector(Frequencies(), limits, {"task": "anomaly-detection"})
