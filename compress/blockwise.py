"""Weights in 4 or 8 bits, in blocks along the input dimension with one scale each (round to nearest).

ONNX has no standard operator that computes on them; these are ONNX Runtime's MatMulNBits and
GatherBlockQuantized (its "contrib operators" document has their layouts).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.graph import Model, add_constant, constants, products, rewrite, tables, without_orphans
from compress.grid import row_scales

# ONNX Runtime may quantize activations to int8 in blocks too: its fastest kernels.
_INT8_COMPUTE = 4
# Parts of a range that are tried as a whole one.
SHRINK = np.linspace(1.0, 0.7, 7, dtype=np.float32)


def block_size(width: int, most: int) -> int:
    """The largest power of two from 16 to `most` that divides the width, else 32 (the rest is padded)."""
    fits = [size for size in (16, 32, 64, 128, 256) if size <= most and width % size == 0]
    return max(fits, default=32)


def quantize_blocks(weight: np.ndarray, bits: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, K) fp32 → codes uint8 (rows, blocks, block) with zero at 2^(bits-1), scales fp32 (rows, blocks).

    In 4 bits the extreme of a block lies at -8, and its scale is the one of a few with the least squared
    error: a single large weight would else cost all the others their precision. Weights that were trained to
    lie on a grid with one scale a row keep it.
    """
    rows, width = weight.shape
    blocks = -(-width // block)
    padded = np.pad(weight.astype(np.float32), ((0, 0), (0, blocks * block - width)))
    values = padded.reshape(rows, blocks, block)
    middle = 1 << (bits - 1)
    extreme = np.take_along_axis(values, np.abs(values).argmax(-1)[..., None], -1)
    scale = extreme / -middle if bits == 4 else np.abs(extreme) / (middle - 1)
    scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
    by_row = row_scales(weight, bits)
    if by_row is not None:
        scale = np.broadcast_to(by_row[..., None], scale.shape)
    elif bits == 4:
        scale = _least_error(values, scale, middle)
    return (_codes(values, scale, middle) + middle).astype(np.uint8), scale[..., 0]


def _codes(values: np.ndarray, scale: np.ndarray, middle: int) -> np.ndarray:
    return np.clip(np.rint(values / scale), -middle, middle - 1)


def _least_error(values: np.ndarray, scale: np.ndarray, middle: int) -> np.ndarray:
    best, least = scale, np.full(scale.shape, np.inf, np.float32)
    for factor in SHRINK:
        tried = scale * factor
        error = ((_codes(values, tried, middle) * tried - values) ** 2).sum(-1, keepdims=True)
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """Two 4-bit codes a byte along the last axis, the first one in the low half."""
    return (codes[..., 0::2] | (codes[..., 1::2] << 4)).astype(np.uint8)


def quantize_products(model: Model, bits: Mapping[str, int], most: int = 64) -> Model:
    """MatMul → MatMulNBits for the nodes named in `bits` (node name → 4 or 8)."""
    from onnx import helper

    weights, found = constants(model), products(model)

    def step(node: Any) -> list[Any]:
        if node.name not in bits or node.name not in found:
            return [node]
        name, width = found[node.name], bits[node.name]
        size = block_size(weights[name].shape[0], most)
        codes, scales = quantize_blocks(weights[name].T, width, size)
        add_constant(model, f"{name}_q{width}", pack_nibbles(codes) if width == 4 else codes)
        add_constant(model, f"{name}_scales{width}", scales.reshape(-1))
        rows, columns = weights[name].shape
        about = {"K": rows, "N": columns, "bits": width, "block_size": size, "accuracy_level": _INT8_COMPUTE}
        inputs = [node.input[0], f"{name}_q{width}", f"{name}_scales{width}"]
        return [_contrib("MatMulNBits", inputs, node, **about)]

    rewrite(model, step)
    return _with_contrib(without_orphans(model), helper)


def quantize_tables(model: Model, bits: Mapping[str, int], most: int = 64) -> Model:
    """Embedding Gather → GatherBlockQuantized for the nodes named in `bits` (node name → 4 or 8)."""
    from onnx import TensorProto, helper

    weights, found = constants(model), tables(model)

    def step(node: Any) -> list[Any]:
        if node.name not in bits or node.name not in found or weights[found[node.name]].shape[1] % 16:
            return [node]
        name, width = found[node.name], bits[node.name]
        table = weights[name]
        size = block_size(table.shape[1], most)
        codes, scales = quantize_blocks(table, width, size)
        flat = codes.reshape(len(table), -1)
        quantized = f"{name}_q{width}"
        if width == 8:
            add_constant(model, quantized, flat)
        elif all(tensor.name != quantized for tensor in model.graph.initializer):
            raw = (pack_nibbles(flat) ^ 0x88).tobytes()  # 0..15 about 8 → two's complement
            model.graph.initializer.append(
                helper.make_tensor(quantized, TensorProto.INT4, flat.shape, raw, raw=True)
            )
        add_constant(model, f"{name}_scales{width}", scales)
        about = {"gather_axis": 0, "quantize_axis": 1, "block_size": size}
        inputs = [quantized, node.input[1], f"{name}_scales{width}"]
        return [
            _contrib("GatherBlockQuantized", inputs, node, **about, **({"bits": 8} if width == 8 else {}))
        ]

    rewrite(model, step)
    return _with_contrib(without_orphans(model), helper)


def _contrib(kind: str, inputs: list[str], node: Any, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, list(node.output), node.name, domain="com.microsoft", **attributes)


def _with_contrib(model: Model, helper: Any) -> Model:
    if all(one.domain != "com.microsoft" for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model
