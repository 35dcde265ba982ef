"""Golden vectors: inputs, their tokens, and the checkpoint's own outputs, as arrays and as rows.

A detector's inputs are windows of numbers, which stand for their tokens too. A generator's are prompts as the
model reads them; its outputs are the logits of the last position, and the tokens that it goes on with.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from runtimes.bundle import NUMBERS, OUTPUTS
from runtimes.generation import TASK as GENERATION
from runtimes.text import pad

MOST_TOLD = 256  # tokens of a continuation


def inputs_of(golden: dict[str, np.ndarray]) -> list[Any]:
    """The texts, (question, passage) pairs, or float32 windows (window,)."""
    if "values" in golden:
        return list(golden["values"])
    if golden["texts"].ndim == 1:
        return [str(text) for text in golden["texts"]]
    return [(str(question), str(passage)) for question, passage in golden["texts"]]


def tokens_of(golden: dict[str, np.ndarray]) -> list[np.ndarray]:
    """int64 token ids of each row, without padding; of a detector the float32 windows themselves."""
    if "values" in golden:
        return list(golden["values"])
    rows = zip(golden["input_ids"], golden["attention_mask"], strict=True)
    return [ids[mask == 1] for ids, mask in rows]


def outputs_of(golden: dict[str, np.ndarray]) -> list[np.ndarray]:
    """float32 outputs of each row, without padding."""
    for name in ("sentence_embedding", "expected"):
        if name in golden:
            return list(golden[name])
    logits = golden["logits"]
    if logits.ndim == 2:
        return list(logits)
    return [row[: int(mask.sum())] for row, mask in zip(logits, golden["attention_mask"], strict=True)]


def continuations_of(golden: dict[str, np.ndarray]) -> list[list[int]]:
    """The tokens that a generator's checkpoint went on with, greedily, behind each prompt."""
    return [row[row >= 0].tolist() for row in golden["continuation"]]


def golden_bytes(
    inputs: Sequence[Any], labels: Sequence[int], tokens: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray], output: str, continuations: Sequence[Sequence[int]] | None = None,
) -> bytes:  # fmt: skip
    """golden.npz of these rows; `output` is what the task calls its outputs. Continuations: a generator's."""
    buffer = io.BytesIO()
    if isinstance(inputs[0], np.ndarray):
        told = {"values": np.stack(list(tokens)), "labels": np.array(labels, np.int64)}
        np.savez_compressed(buffer, allow_pickle=False, **told, **{output: np.stack(list(outputs))})
        return buffer.getvalue()
    ids = [one.tolist() for one in tokens]
    feeds = pad(ids, max(map(len, ids)), 0)
    rows: np.ndarray
    if outputs[0].ndim == 1:
        rows = np.stack(list(outputs))
    else:
        rows = np.zeros((len(outputs), feeds["input_ids"].shape[1], outputs[0].shape[1]), np.float32)
        for row, values in enumerate(outputs):
            rows[row, : len(values)] = values
    arrays = {"texts": np.array(inputs), "labels": np.array(labels, np.int64), output: rows}
    arrays |= {key: feeds[key] for key in ("input_ids", "attention_mask")}
    if continuations is not None:
        told = pad(continuations, max(map(len, continuations)), -1)
        arrays["continuation"] = told["input_ids"]
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def check_golden(golden: dict[str, np.ndarray], manifest: dict[str, Any]) -> None:
    """Raises ValueError (KeyError) unless the arrays are of one set of inputs of that bundle's task."""
    if manifest["task"] == NUMBERS:
        _check_windows(golden, manifest["limits"])
        return
    labels = len(manifest["labels"])
    texts, (rows, length) = golden["texts"], golden["input_ids"].shape
    count = len(texts)
    pairs = texts.ndim == 2
    if texts.dtype.kind != "U" or texts.shape not in ((count,), (count, 2)) or not count:
        raise ValueError("texts, or pairs of them, are expected")
    if "values" in golden or "expected" in golden:
        raise ValueError("windows of numbers are a detector's")
    if rows < count or (rows > count and not pairs) or len(golden.keys() & set(OUTPUTS)) != 1:
        raise ValueError(f"{rows} rows for {count} texts")
    if (manifest["task"] == GENERATION) != ("continuation" in golden):
        raise ValueError("continuations are a generator's, and it has some")
    output = next(golden[name] for name in OUTPUTS if name in golden)
    shapes = {"labels": (count,), "attention_mask": (rows, length)}
    if pairs:
        shapes["logits"] = (rows, length, 2)
    elif "continuation" in golden:
        labels = _check_continuations(golden, count)
    if "logits" in golden and not pairs:
        shapes["logits"] = (rows, labels)
    for name, shape in shapes.items():
        if golden[name].shape != shape:
            raise ValueError(f"{name} has shape {golden[name].shape}, not {shape}")
    if len(output) != rows or output.ndim < 2 or not np.isfinite(output).all():
        raise ValueError("finite outputs are expected")
    if (golden["attention_mask"].sum(axis=1) < 1).any():
        raise ValueError("a text without tokens")


def _check_continuations(golden: dict[str, np.ndarray], count: int) -> int:
    """The size of the vocabulary, where continuations are token ids in it, -1 behind their end."""
    told, size = golden["continuation"], golden["logits"].shape[-1]
    if told.ndim != 2 or len(told) != count or told.dtype != np.int64 or not 0 < told.shape[1] <= MOST_TOLD:
        raise ValueError(f"1 to {MOST_TOLD} int64 tokens behind each prompt are expected")
    if (told < -1).any() or (told >= size).any() or (told[:, 0] < 0).any():
        raise ValueError("continuations are ids of the vocabulary")
    return int(size)


def _check_windows(golden: dict[str, np.ndarray], limits: dict[str, int]) -> None:
    count, window = len(golden["values"]), limits["window"]
    shapes = {
        "values": (count, window),
        "expected": (count, window + limits["patch"]),
        "labels": (count,),
    }
    for name, shape in shapes.items():
        if golden[name].shape != shape or not count:
            raise ValueError(f"{name} has shape {golden[name].shape}, not {shape}")
    if golden.keys() != shapes.keys() or golden["values"].dtype != np.float32:
        raise ValueError("float32 values, expected and labels are expected, and nothing else")
    if not all(np.isfinite(golden[name]).all() for name in ("values", "expected")):
        raise ValueError("finite numbers are expected")
