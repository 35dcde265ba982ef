"""Decoder graph → weights in 8 or 4 bits, embeddings and head too; the cache and what it holds stay fp32.

The matrix that embeddings and head share (a tied model) is kept once: MatMulNBits and GatherBlockQuantized of
ONNX Runtime read the same codes and scales. Scales lie in the file as fp16 and are widened once, at load.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compress.blockwise import block_size, pack_nibbles, quantize_affine, quantize_blocks, quantize_tables
from compress.calibrate import read_rows
from compress.gptq import gptq, moments
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

Codes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Blocks:
    """So many weights along the input share a scale (the largest power of two up to it that divides the
    width), and without `symmetric` a zero point. Attention's products of query, key and value, and the head
    with the embeddings, have bits of their own. `accuracy_level` 4 lets the engine compute in int8, 1 in fp32
    (MatMulNBits)."""

    bits: int = 4
    block: int = 32
    symmetric: bool = False
    attention_bits: int = 8
    head_bits: int = 4
    head_block: int = 16
    accuracy_level: int = 4


# By the table of docs/language/export.md, `python -m apps.language.bits`.
INT4 = Blocks()
INT8 = Blocks(bits=8, symmetric=True, head_bits=8, head_block=32)


def onnx_decoder_int4(source: str, target: str, rows: str | None = None) -> dict[str, Any]:
    """`rows`: .npz of `input_ids` int64 (texts, length), on which rounding is fitted (`compress.gptq`);
    without them weights are rounded to the nearest."""
    return quantize_decoder(source, target, INT4, rows)


def onnx_decoder_int8(source: str, target: str) -> dict[str, Any]:
    """8 bits lose so little that nothing is fitted."""
    return quantize_decoder(source, target, INT8)


def quantize_decoder(source: str, target: str, blocks: Blocks, rows: str | None = None) -> dict[str, Any]:
    """Write the quantized graph of the fp32 graph `source`; return {"blocks": what was done}."""
    import onnx

    model = simplified(onnx.load(source))
    found = products(model)
    seen = moments(model, found, list(read_rows(rows)["input_ids"])) if rows else {}
    onnx.save(quantized(model, blocks, seen), target)
    return {"blocks": {**asdict(blocks), "fitted": bool(rows)}}


def quantized(model: Model, blocks: Blocks, seen: dict[str, np.ndarray]) -> Model:
    """The simplified fp32 graph, changed; `seen` are the moments of the products' inputs, where rounding is
    to be fitted."""
    weights, found = constants(model), products(model)
    tied = _tied(model, found)
    make = _Make(model, blocks, seen, weights)

    def step(node: Any) -> list[Any]:
        if node.op_type == "Gather" and node.name in tied:
            return make.gather(node, tied[node.name])
        if node.op_type == "Transpose" and node.name.removesuffix("_turn") in tied:
            return []
        if node.op_type == "MatMul" and node.name in found:
            return make.product(node, found[node.name])
        return [node]

    # Backwards: the head's codes are fitted to what the head reads, the embeddings take them as they are.
    nodes = [made for node in reversed(model.graph.node) for made in reversed(step(node))]
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    rewrite(model, lambda node: [*make.widened.pop(node.name, []), node])
    untied = {name: blocks.head_bits for name, table in tables(model).items() if "wpe" not in table}
    return without_orphans(_with_contrib(quantize_tables(model, untied, blocks.head_block)))


def _with_contrib(model: Model) -> Model:
    from onnx import helper

    if all(one.domain != "com.microsoft" for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _tied(model: Model, found: dict[str, str]) -> dict[str, str]:
    """Name of a Gather of columns → the weight (K, N) that a product reads as well."""
    read = set(found.values())
    return {
        node.name: node.input[0]
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[0] in read
    }


class _Make:
    """Nodes that take the place of others; each weight is quantized once."""

    def __init__(
        self, model: Model, blocks: Blocks, seen: dict[str, np.ndarray], weights: dict[str, np.ndarray]
    ) -> None:
        self.model, self.blocks, self.seen, self.weights = model, blocks, seen, weights
        self.known: dict[str, tuple[list[str], int, int]] = {}
        self.widened: dict[str, list[Any]] = {}  # node → casts of its scales, to stand before it

    def product(self, node: Any, weight: str) -> list[Any]:
        names, bits, size = self._weight(node, weight)
        width, rows = self.weights[weight].shape
        about = {"K": width, "N": rows, "bits": bits, "block_size": size}
        about["accuracy_level"] = self.blocks.accuracy_level
        return [_contrib("MatMulNBits", [node.input[0], *names], list(node.output), node.name, about)]

    def gather(self, node: Any, weight: str) -> list[Any]:
        """The same codes as the head's, seen as a table (vocabulary, bytes)."""
        from onnx import helper

        names, bits, size = self.known[weight]
        add_constant(self.model, f"{weight}_rows", np.array([self.weights[weight].shape[1], -1], np.int64))
        table, output = f"{weight}_table", node.output[0].removesuffix("_columns")
        about = {"bits": bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
        return [
            helper.make_node("Reshape", [names[0], f"{weight}_rows"], [table], table),
            _contrib("GatherBlockQuantized", [table, node.input[1], *names[1:]], [output], node.name, about),
        ]

    def _weight(self, node: Any, weight: str) -> tuple[list[str], int, int]:
        if weight not in self.known:
            bits, most = self._bits(node.name)
            rows = np.ascontiguousarray(self.weights[weight].T)
            size = block_size(rows.shape[1], most)
            codes, scales, zeros = self._codes(rows, self.seen.get(node.input[0]), bits, size)
            names = [f"{weight}_q{bits}", f"{weight}_scales"]
            self._keep(names, codes, scales, bits)
            if not self.blocks.symmetric:
                names.append(f"{weight}_zeros")
                even = np.pad(zeros, ((0, 0), (0, zeros.shape[1] % 2))) if bits == 4 else zeros
                add_constant(self.model, names[2], pack_nibbles(even) if bits == 4 else even)
            self.known[weight] = names, bits, size
        return self.known[weight]

    def _keep(self, names: list[str], codes: np.ndarray, scales: np.ndarray, bits: int) -> None:
        from onnx import TensorProto, helper

        add_constant(self.model, names[0], pack_nibbles(codes) if bits == 4 else codes)
        add_constant(self.model, f"{names[1]}_fp16", scales.astype(np.float16))
        cast = helper.make_node(
            "Cast", [f"{names[1]}_fp16"], [names[1]], f"{names[1]}_widen", to=TensorProto.FLOAT
        )
        first = self.model.graph.node[0].name
        self.widened.setdefault(first, []).append(cast)

    def _bits(self, node: str) -> tuple[int, int]:
        if "lm_head" in node:
            return self.blocks.head_bits, self.blocks.head_block
        attention = any(part in node for part in ("qkv_proj", "q_proj", "k_proj", "v_proj", "c_attn"))
        return self.blocks.attention_bits if attention else self.blocks.bits, self.blocks.block

    def _codes(self, rows: np.ndarray, seen: np.ndarray | None, bits: int, size: int) -> Codes:
        symmetric = self.blocks.symmetric
        if seen is not None and bits == 4 and rows.shape[1] % size == 0:
            return gptq(rows, seen, bits, size, symmetric)
        if not symmetric:
            return quantize_affine(rows, bits, size)
        codes, scales = quantize_blocks(rows, bits, size)
        return codes, scales, np.zeros_like(scales, np.uint8)


def _contrib(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str, about: dict[str, Any]
) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, outputs, name, domain="com.microsoft", **about)
