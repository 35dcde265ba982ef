"""Golden vectors: inputs, their tokens, and the checkpoint's own outputs, as arrays and as rows."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from runtimes.text import pad


def inputs_of(golden: dict[str, np.ndarray]) -> list[Any]:
    """The texts, or (question, passage) pairs."""
    if golden["texts"].ndim == 1:
        return [str(text) for text in golden["texts"]]
    return [(str(question), str(passage)) for question, passage in golden["texts"]]


def tokens_of(golden: dict[str, np.ndarray]) -> list[np.ndarray]:
    """int64 token ids of each row, without padding."""
    rows = zip(golden["input_ids"], golden["attention_mask"], strict=True)
    return [ids[mask == 1] for ids, mask in rows]


def outputs_of(golden: dict[str, np.ndarray]) -> list[np.ndarray]:
    """float32 outputs of each row, without padding."""
    if "sentence_embedding" in golden:
        return list(golden["sentence_embedding"])
    logits = golden["logits"]
    if logits.ndim == 2:
        return list(logits)
    return [row[: int(mask.sum())] for row, mask in zip(logits, golden["attention_mask"], strict=True)]


def golden_bytes(
    inputs: Sequence[Any], labels: Sequence[int], tokens: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray], output: str,
) -> bytes:  # fmt: skip
    """golden.npz of these rows; `output` is what the task calls its outputs."""
    ids = [one.tolist() for one in tokens]
    feeds = pad(ids, max(map(len, ids)), 0)
    rows: np.ndarray
    if outputs[0].ndim == 1:
        rows = np.stack(list(outputs))
    else:
        rows = np.zeros((len(outputs), feeds["input_ids"].shape[1], outputs[0].shape[1]), np.float32)
        for row, values in enumerate(outputs):
            rows[row, : len(values)] = values
    buffer = io.BytesIO()
    arrays = {"texts": np.array(inputs), "labels": np.array(labels, np.int64), output: rows}
    arrays |= {key: feeds[key] for key in ("input_ids", "attention_mask")}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
