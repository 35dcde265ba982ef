"""Rounding weights to blocks so that a product's output errs least, not its weights: GPTQ.

Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers": what
rounding a column does is made up for in the columns behind it, by the second moments of the inputs on some
text. Those are taken from the graph before it is quantized, for all products at once.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from compress.blockwise import SHRINK
from compress.graph import Model

# Added to the diagonal, as a part of its mean (the paper's).
DAMPING = 0.01
_TOGETHER = 128  # columns whose corrections reach those behind in one product


def moments(model: Model, found: dict[str, str], rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Name of a product's input → Σ x xᵀ, float32 (K, K), over all tokens of `rows` (token ids, int64).

    `found` has the products by the names of their nodes.
    """
    import onnx
    from onnx import TensorProto, helper

    inputs = sorted({node.input[0] for node in model.graph.node if node.name in found})
    told = {output.name for output in model.graph.output}
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    # Without num_logits_to_keep the head would see the last position alone.
    seen.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs if name not in told
    )
    total: dict[str, np.ndarray] = {}
    with TemporaryDirectory(prefix="edgewise-") as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(seen, file)
        del seen
        session = _session(file)
        for number, row in enumerate(rows, 1):
            print(f"moments: text {number} of {len(rows)}", file=sys.stderr, flush=True)
            for name, value in zip(inputs, session.run(inputs, _feeds(session, row)), strict=True):
                flat = value.reshape(-1, value.shape[-1])
                total[name] = total.get(name, np.float32(0)) + flat.T @ flat
    return total


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _feeds(session: Any, row: np.ndarray) -> dict[str, np.ndarray]:
    """One text with an empty cache."""
    ids = np.asarray(row, np.int64)[None]
    known = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
        "num_logits_to_keep": np.array(0, np.int64),
    }
    feeds = {}
    for one in session.get_inputs():
        empty = [size if isinstance(size, int) else 0 for size in one.shape]
        feeds[one.name] = known[one.name] if one.name in known else np.zeros([1, *empty[1:]], np.float32)
    return feeds


def gptq(
    weight: np.ndarray, moment: np.ndarray, bits: int, block: int, symmetric: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, K) fp32 and Σ x xᵀ (K, K) → codes uint8 (rows, blocks, block), scales fp32 and zero points uint8
    (rows, blocks); weight = (code - zero) · scale. `block` divides K."""
    rows, width = weight.shape
    left = weight.astype(np.float32).copy()
    inverse, weighing = _inverse_root(moment)
    codes = np.zeros((rows, width), np.uint8)
    scales = np.zeros((rows, width // block), np.float32)
    zeros = np.zeros_like(scales)
    for start in range(0, width, _TOGETHER):
        end = min(start + _TOGETHER, width)
        errors = np.zeros((rows, end - start), np.float32)
        for column in range(start, end):
            at = column // block
            if column % block == 0:
                span = slice(column, column + block)
                scales[:, at], zeros[:, at] = _grid(left[:, span], weighing[span], bits, symmetric)
            scale, zero = scales[:, at], zeros[:, at]
            code = np.clip(np.rint(left[:, column] / scale) + zero, 0, (1 << bits) - 1)
            codes[:, column] = code
            error = (left[:, column] - (code - zero) * scale) / inverse[column, column]
            left[:, column + 1 : end] -= np.outer(error, inverse[column, column + 1 : end])
            errors[:, column - start] = error
        left[:, end:] -= errors @ inverse[start:end, end:]
    return codes.reshape(rows, -1, block), scales, zeros.astype(np.uint8)


def _inverse_root(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper Cholesky factor of the damped inverse, and the diagonal that weighs errors; float32."""
    damped = moment.astype(np.float64)
    diagonal = np.diag(damped).copy()
    diagonal[diagonal == 0] = diagonal.mean() or 1.0  # inputs that are never there
    np.fill_diagonal(damped, diagonal + DAMPING * diagonal.mean())
    root = np.linalg.cholesky(np.linalg.inv(damped)).T
    return root.astype(np.float32), diagonal.astype(np.float32)


def _grid(
    values: np.ndarray, weighing: np.ndarray, bits: int, symmetric: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point (rows,) of one block (rows, block): of a few ranges the one that errs least."""
    most, middle = (1 << bits) - 1, 1 << (bits - 1)
    best: tuple[np.ndarray, np.ndarray] | None = None
    least = np.full(len(values), np.inf, np.float32)
    extreme = np.take_along_axis(values, np.abs(values).argmax(-1)[:, None], -1)[:, 0]
    high, low = np.maximum(values.max(-1), 0), np.minimum(values.min(-1), 0)
    for factor in SHRINK:
        scale = extreme / -middle * factor if symmetric else (high - low) * factor / most
        scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
        zero = np.full_like(scale, middle) if symmetric else np.clip(np.rint(-low * factor / scale), 0, most)
        code = np.clip(np.rint(values / scale[:, None]) + zero[:, None], 0, most)
        error = (((code - zero[:, None]) * scale[:, None] - values) ** 2) @ weighing
        better = error < least
        old = best or (scale, zero)
        best = np.where(better, scale, old[0]), np.where(better, zero, old[1])
        least = np.minimum(error, least)
    assert best is not None
    return best
