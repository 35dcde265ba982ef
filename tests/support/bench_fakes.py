"""Stand-ins for a model and for what a bench gives."""

from typing import Any

import numpy as np

LABELS = ["sports", "world"]
LIMITS = {"max_tokens": 16, "max_chars": 1000, "max_batch": 8}


class FakeModel:
    """The methods of a classifier that the bench uses; the logits come from the text's length."""

    def __init__(self, engine: str = "onnxruntime", variant: str = "onnx-fp32", labels: Any = None) -> None:
        self.labels = labels or LABELS
        self.engine, self.variant = engine, variant

    def __call__(self, text: str) -> str:
        return self.labels[int(self.logits([text])[0].argmax())]

    def answers(self, texts: list[str]) -> list[str]:
        return [self(text) for text in texts]

    def outputs(self, texts: list[str]) -> list[np.ndarray]:
        return list(self.logits(texts))

    def verdicts(self, texts: list[str], outputs: list[np.ndarray]) -> list[int]:
        return [int(row.argmax()) for row in outputs]

    def metric(self, texts: list[str], outputs: list[np.ndarray], truths: list[int]) -> dict[str, Any]:
        right = np.array(self.verdicts(texts, outputs)) == np.array(truths)
        return {"name": "accuracy", "value": float(right.mean()), "n": len(right)}

    def logits(self, texts: list[str]) -> np.ndarray:
        return np.array([[len(text) % 2, 1 - len(text) % 2] for text in texts], np.float32)

    def prepare(self, texts: list[str]) -> list[str]:
        return texts

    def run(self, prepared: list[str]) -> np.ndarray:
        return self.logits(prepared)

    def describe(self) -> dict[str, Any]:
        return {
            "bundle": "fake", "task": "text-classification", "variant": self.variant, "engine": self.engine,
            "engine_version": "1.0", "threads": 1, "providers": ["CPU"], "precision": "fp32",
        }  # fmt: skip


def row(
    variant: str = "onnx-int8", p50: float = 1.9, accuracy: float | None = 0.9, **more: Any
) -> dict[str, Any]:
    """A whole bench row; keyword arguments replace keys."""
    metric = None if accuracy is None else {"name": "accuracy", "value": accuracy, "n": 1000}
    return {
        "bundle": "news", "variant": variant, "engine": "onnxruntime", "engine_version": "1.32.0",
        "device": {
            "name": "Board 5", "soc": "Core A76", "cores": 4, "isa": ["neon", "dotprod"], "memory_mb": 8062,
            "os": "Debian", "governor": None, "temperature_c": 51.5,
        },
        "emulated": False, "simulated_profile": None, "threads": 1, "batch": 1, "n": 1024, "seconds": 2.1,
        "tokenization": True,
        "latency_ms": {
            "p50": p50, "p90": p50 * 1.4, "p99": p50 * 2, "mean": p50 * 1.1, "ci95": [p50 * 0.98, p50 * 1.02],
        },
        "cold_start_ms": 310.0, "peak_rss_mb": 96.5, "size_bytes": 11_200_000, "metric": metric,
        "parity": {"max_abs": 0.03, "cosine": 0.9991, "agreement": 0.998},
        "energy_mj": None, "energy_source": None, "note": "energy: no sensor is read on this machine",
        **more,
    }  # fmt: skip
