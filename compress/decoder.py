"""Decoder graph → weights in 8 or 4 bits, embeddings and head too; the cache and what it holds stay fp32.

The matrix that embeddings and head share (a tied model) is kept once: MatMulNBits and GatherBlockQuantized of
ONNX Runtime read the same codes and scales.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.blockwise import block_size, pack_nibbles, quantize_affine, quantize_blocks, quantize_tables
from compress.graph import (
    Model,
    add_constant,
    constants,
    products,
    rewrite,
    simplified,
    tables,
    without_orphans,
)


@dataclass(frozen=True)
class Blocks:
    """`block` weights along the input share a scale (the largest power of two up to it that divides the
    width); without `symmetric` a zero point too. `head_bits` are those of head and embeddings.
    `accuracy_level` 4 lets the engine compute in int8, 1 in fp32 (MatMulNBits)."""

    bits: int = 4
    block: int = 32
    symmetric: bool = False
    head_bits: int = 4
    accuracy_level: int = 4


INT4 = Blocks()
INT8 = Blocks(bits=8, symmetric=True, head_bits=8)


def onnx_decoder_int4(source: str, target: str) -> dict[str, Any]:
    """See `docs/language/export.md` for why these blocks."""
    return quantize_decoder(source, target, INT4)


def onnx_decoder_int8(source: str, target: str) -> dict[str, Any]:
    return quantize_decoder(source, target, INT8)


def quantize_decoder(source: str, target: str, blocks: Blocks) -> dict[str, Any]:
    """Write the quantized graph of the fp32 graph `source`; return {"blocks": what was done}."""
    import onnx
    from onnx import helper

    model = simplified(onnx.load(source))
    weights, found = constants(model), products(model)
    tied = _tied(model, found)
    heads = {name for name in found if "lm_head" in name}

    def step(node: Any) -> list[Any]:
        if node.name in tied and node.op_type == "Gather":
            weight = tied[node.name]
            return _gather(model, node, weight, weights[weight].T, blocks)
        if node.name.removesuffix("_turn") in tied and node.op_type == "Transpose":
            return []
        if node.name not in found or node.op_type != "MatMul":
            return [node]
        bits = blocks.head_bits if node.name in heads else blocks.bits
        return _product(model, node, found[node.name], weights[found[node.name]].T, bits, blocks)

    rewrite(model, step)
    untied = {name: blocks.head_bits for name, table in tables(model).items() if "wpe" not in table}
    quantize_tables(model, untied, blocks.block)
    if all(one.domain != "com.microsoft" for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(without_orphans(model), target)
    told = {"bits": blocks.bits, "head_bits": blocks.head_bits, "block": blocks.block}
    return {"blocks": {**told, "symmetric": blocks.symmetric}}


def _tied(model: Model, found: dict[str, str]) -> dict[str, str]:
    """Name of a Gather of columns → the weight (K, N) that a product reads as well."""
    read = set(found.values())
    return {
        node.name: node.input[0]
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[0] in read
    }


def _codes(model: Model, name: str, rows: np.ndarray, bits: int, blocks: Blocks) -> tuple[list[str], int]:
    """Names of codes, scales and perhaps zero points of `rows` (N, K); and the block's size."""
    size = block_size(rows.shape[1], blocks.block)
    names = [f"{name}_q{bits}", f"{name}_scales{bits}"]
    if any(tensor.name == names[0] for tensor in model.graph.initializer):
        return names + ([] if blocks.symmetric else [f"{name}_zeros{bits}"]), size
    zeros = None
    if blocks.symmetric:
        codes, scales = quantize_blocks(rows, bits, size)
    else:
        codes, scales, zeros = quantize_affine(rows, bits, size)
    add_constant(model, names[0], pack_nibbles(codes) if bits == 4 else codes)
    add_constant(model, names[1], scales)
    if zeros is not None:
        names.append(f"{name}_zeros{bits}")
        even = np.pad(zeros, ((0, 0), (0, zeros.shape[1] % 2))) if bits == 4 else zeros
        add_constant(model, names[2], pack_nibbles(even) if bits == 4 else even)
    return names, size


def _product(model: Model, node: Any, name: str, rows: np.ndarray, bits: int, blocks: Blocks) -> list[Any]:
    from onnx import helper

    names, size = _codes(model, name, rows, bits, blocks)
    about = {"K": rows.shape[1], "N": rows.shape[0], "bits": bits, "block_size": size}
    about["accuracy_level"] = blocks.accuracy_level
    inputs = [node.input[0], *names]
    return [
        helper.make_node("MatMulNBits", inputs, list(node.output), node.name, domain="com.microsoft", **about)
    ]


def _gather(model: Model, node: Any, name: str, rows: np.ndarray, blocks: Blocks) -> list[Any]:
    """The same codes as the head's, seen as a table (vocabulary, bytes)."""
    from onnx import helper

    names, size = _codes(model, name, rows, blocks.head_bits, blocks)
    add_constant(model, f"{name}_shape", np.array([len(rows), -1], np.int64))
    output = node.output[0].removesuffix("_columns")
    about = {"bits": blocks.head_bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
    return [
        helper.make_node("Reshape", [names[0], f"{name}_shape"], [f"{name}_table"], f"{node.name}_table"),
        helper.make_node(
            "GatherBlockQuantized",
            [f"{name}_table", node.input[1], *names[1:]],
            [output],
            node.name,
            domain="com.microsoft",
            **about,
        ),
    ]
