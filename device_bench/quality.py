"""Whether a variant is still right: parity with its checkpoint's outputs, and what a metric needs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtimes.errors import EngineError, InputError
from runtimes.parity import compare


def parity(
    model: Any, inputs: Sequence[Any], outputs: Sequence[np.ndarray], golden: Sequence[np.ndarray]
) -> dict[str, float]:
    """The `parity` block: a variant's outputs a row against its checkpoint's, as the gate compares them.

    `model` tells verdicts. Raises EngineError where the shapes differ.
    """
    if [one.shape for one in outputs] != [one.shape for one in golden]:
        raise EngineError("outputs of other shapes than the golden ones; build the bundle again")
    return compare(golden, outputs, model.verdicts(inputs, golden), model.verdicts(inputs, outputs))


def finite_outputs(model: Any, inputs: Sequence[Any]) -> list[np.ndarray]:
    """`model.outputs(inputs)`. Raises EngineError where one of them is NaN or infinite."""
    outputs = [np.asarray(row) for row in model.outputs(list(inputs))]
    for row, values in enumerate(outputs, 1):
        if not np.isfinite(values).all():
            raise EngineError(f"outputs of text {row} are not finite; the variant is broken")
    return outputs


def check_truths(inputs: Sequence[Any], truths: Sequence[Any] | None, labels: Sequence[str] | None) -> None:
    """Raises InputError unless each input has one truth: an index into `labels`, where there are any."""
    if not len(inputs):
        raise InputError("bench: no texts; give a sample to measure on")
    if truths is None:
        return
    if len(truths) != len(inputs):
        raise InputError(f"bench: {len(inputs)} texts but {len(truths)} labels; give one label for each text")
    wrong = [label for label in truths if labels is not None and not 0 <= int(label) < len(labels)]
    if wrong:
        raise InputError(
            f"bench: label {wrong[0]} is not in 0..{len(labels or ()) - 1}; the sample is of another task"
        )


def size(one: Any) -> int:
    """Characters of an input: a text, or a question and its passage. Points of a window."""
    return len(one) if isinstance(one, str | np.ndarray) else sum(map(len, one))


def plain(inputs: Sequence[Any]) -> list[Any]:
    """Inputs as JSON takes them: windows as lists of numbers, texts and pairs as they are."""
    return [one.tolist() if isinstance(one, np.ndarray) else one for one in inputs]


def from_plain(inputs: Sequence[Any]) -> list[Any]:
    """What `plain` told, as the task takes it: float32 windows again."""
    numbers = bool(inputs) and isinstance(inputs[0], list) and not isinstance((inputs[0] or [""])[0], str)
    return [np.asarray(one, np.float32) for one in inputs] if numbers else list(inputs)
