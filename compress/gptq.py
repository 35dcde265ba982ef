"""Rounding weights to blocks so that a product's output errs least, not its weights: GPTQ.

Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers": what
rounding a column does is made up for in the columns behind it, by the second moments of the inputs on some
text. Those are taken from the graph before it is quantized, for all products at once.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from compress.blockwise import SHRINK
from compress.graph import Model

# Where a block's zero lies: in the middle of the codes, on a code, or anywhere between them.
Zero = Literal["middle", "whole", "free"]
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
    weight: np.ndarray, moment: np.ndarray, bits: int, block: int, zero: Zero
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, K) fp32 and Σ x xᵀ (K, K) → codes uint8 (rows, blocks, block), scales and zero points fp32
    (rows, blocks); weight = (code - zero point) · scale. `block` divides K."""
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
                scales[:, at], zeros[:, at] = grid(left[:, span], weighing[span], bits, zero)
            scale, middle = scales[:, at], zeros[:, at]
            code = np.clip(np.rint(left[:, column] / scale + middle), 0, (1 << bits) - 1)
            codes[:, column] = code
            error = (left[:, column] - (code - middle) * scale) / inverse[column, column]
            left[:, column + 1 : end] -= np.outer(error, inverse[column, column + 1 : end])
            errors[:, column - start] = error
        left[:, end:] -= errors @ inverse[start:end, end:]
    return codes.reshape(rows, -1, block), scales, zeros


def rounded(
    weight: np.ndarray, bits: int, block: int, zero: Zero
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same to the nearest, without moments."""
    values = weight.astype(np.float32).reshape(len(weight), -1, block)
    even = np.ones(block, np.float32)
    found = [grid(values[:, at], even, bits, zero) for at in range(values.shape[1])]
    scales, zeros = (np.stack(parts, axis=1) for parts in zip(*found, strict=True))
    codes = np.clip(np.rint(values / scales[..., None] + zeros[..., None]), 0, (1 << bits) - 1)
    return codes.astype(np.uint8), scales, zeros


def _inverse_root(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper Cholesky factor of the damped inverse, and the diagonal that weighs errors; float32."""
    damped = moment.astype(np.float64)
    diagonal = np.diag(damped).copy()
    diagonal[diagonal == 0] = diagonal.mean() or 1.0  # inputs that are never there
    np.fill_diagonal(damped, diagonal + DAMPING * diagonal.mean())
    root = np.linalg.cholesky(np.linalg.inv(damped)).T
    return root.astype(np.float32), diagonal.astype(np.float32)


def grid(values: np.ndarray, weighing: np.ndarray, bits: int, zero: Zero) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point float32 (rows,) of one block (rows, block): of a few ranges the one whose squared
    error, weighed by column, is least."""
    most, middle = (1 << bits) - 1, 1 << (bits - 1)
    high, low = values.max(-1), values.min(-1)
    if zero == "whole":
        high, low = np.maximum(high, 0), np.minimum(low, 0)
    extreme = np.where(high > -low, high, low)
    best: tuple[np.ndarray, np.ndarray] | None = None
    least = np.full(len(values), np.inf, np.float32)
    for factor in SHRINK:
        scale = extreme / -middle * factor if zero == "middle" else (high - low) * factor / most
        scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
        point = np.full_like(scale, middle) if zero == "middle" else -low * factor / scale
        point = np.clip(np.rint(point), 0, most) if zero == "whole" else point.astype(np.float32)
        code = np.clip(np.rint(values / scale[:, None] + point[:, None]), 0, most)
        error = (((code - point[:, None]) * scale[:, None] - values) ** 2) @ weighing
        better = error < least
        old = best or (scale, point)
        best = np.where(better, scale, old[0]), np.where(better, point, old[1])
        least = np.minimum(error, least)
    assert best is not None
    return best
