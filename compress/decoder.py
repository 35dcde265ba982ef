"""Decoder graph → weights in 8 or 4 bits, embeddings and head too; the cache and what it holds stay fp32.

The matrix that embeddings and head share (a tied model) is kept once: MatMulNBits and GatherBlockQuantized of
ONNX Runtime read the same codes and scales. Scales lie in the file as fp16 and are widened once, at load.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compress.blockwise import block_size, pack_nibbles, quantize_tables
from compress.calibrate import read_rows
from compress.gptq import Zero, gptq, moments, rounded
from compress.graph import (
    Model,
    add_constant,
    constants,
    products,
    simplified,
    tables,
    without_orphans,
)

Codes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Blocks:
    """So many weights along the input share a scale (the largest power of two up to it that divides the
    width) and a zero point: in the `middle` of the codes, on a `whole` code, or `free` between two.

    A free one is a whole one and a rest. The rest times the sum of the block's inputs is what it adds to a
    product, so the rests are further columns of the weight, in 4 bits, and the sums further inputs. Weights
    that come from llama.cpp's Q4_1 (a scale and a free minimum for each 32) are met exactly.
    Attention's products of query, key and value have bits of their own; so has the head with the embeddings,
    whose zero lies in the middle. `accuracy_level` 4 lets the engine compute in int8, 1 in fp32.
    """

    bits: int = 4
    block: int = 32
    zero: Zero = "free"
    attention_bits: int = 4
    head_bits: int = 4
    head_block: int = 32
    accuracy_level: int = 4


# By the table of docs/language/export.md, `python -m apps.language.bits`.
INT4 = Blocks()
INT8 = Blocks(bits=8, zero="middle", attention_bits=8, head_bits=8)


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
    onnx.save(quantized(model, blocks, seen_by(model, rows) if rows else {}), target)
    return {"blocks": {**asdict(blocks), "fitted": bool(rows)}}


def seen_by(model: Model, rows: str) -> dict[str, np.ndarray]:
    """The moments of the products' inputs of a simplified graph on `rows` (see `onnx_decoder_int4`)."""
    return moments(model, products(model), list(read_rows(rows)["input_ids"]))


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
    nodes.reverse()
    del model.graph.node[:]
    model.graph.node.extend(_sorted(nodes, make.before.values()))
    untied = {name: blocks.head_bits for name, table in tables(model).items() if "wpe" not in table}
    return without_orphans(_with_contrib(quantize_tables(model, untied, blocks.head_block)))


def _sorted(nodes: list[Any], more: Iterable[list[Any]]) -> list[Any]:
    """The nodes in their order, each group of `more` before the first that reads what it makes."""
    makes = {group[-1].output[0]: group for group in more}
    found = []
    for node in nodes:
        for name in node.input:
            found += makes.pop(name, [])
        found.append(node)
    return found


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


@dataclass(frozen=True)
class _Known:
    """A weight that is quantized: the names of its codes, scales and perhaps zero points."""

    names: list[str]
    bits: int
    block: int
    width: int  # of the inputs, with the sums of blocks where there are such


class _Make:
    """Nodes that take the place of others; each weight is quantized once."""

    def __init__(
        self, model: Model, blocks: Blocks, seen: dict[str, np.ndarray], weights: dict[str, np.ndarray]
    ) -> None:
        self.model, self.blocks, self.seen, self.weights = model, blocks, seen, weights
        self.known: dict[str, _Known] = {}
        self.before: dict[str, list[Any]] = {}  # node → what must stand before it

    def product(self, node: Any, weight: str) -> list[Any]:
        made = self._weight(node, weight)
        rows, first = self.weights[weight].shape[1], node.input[0]
        about = {"K": made.width, "N": rows, "bits": made.bits, "block_size": made.block}
        about["accuracy_level"] = self.blocks.accuracy_level
        if made.width != self.weights[weight].shape[0]:
            first = self._with_sums(node, made.block)
        return [_contrib("MatMulNBits", [first, *made.names], list(node.output), node.name, about)]

    def gather(self, node: Any, weight: str) -> list[Any]:
        """The same codes as the head's, seen as a table (vocabulary, bytes)."""
        from onnx import helper

        made = self.known[weight]
        add_constant(self.model, f"{weight}_rows", np.array([self.weights[weight].shape[1], -1], np.int64))
        table, output = f"{weight}_table", node.output[0].removesuffix("_columns")
        about = {"bits": made.bits, "block_size": made.block, "gather_axis": 0, "quantize_axis": 1}
        inputs = [table, node.input[1], *made.names[1:]]
        return [
            helper.make_node("Reshape", [made.names[0], f"{weight}_rows"], [table], table),
            _contrib("GatherBlockQuantized", inputs, [output], node.name, about),
        ]

    def _with_sums(self, node: Any, block: int) -> str:
        """The node's input with the sum of each block behind it, made once for all that read it."""
        from onnx import helper

        name = node.input[0]
        rank = 2 if node.output[0].endswith("_product") else 3  # a Gemm's before it was split
        shape, axis = f"blocks_of_{block}_{rank}", f"sum_axis_{rank}"
        add_constant(self.model, shape, np.array([0] * (rank - 1) + [-1, block], np.int64))
        add_constant(self.model, axis, np.array([rank], np.int64))
        nodes = [
            helper.make_node("Reshape", [name, shape], [f"{name}_blocks"], f"{name}_blocks"),
            helper.make_node(
                "ReduceSum", [f"{name}_blocks", axis], [f"{name}_sums"], f"{name}_sums", keepdims=0
            ),
            helper.make_node("Concat", [name, f"{name}_sums"], [f"{name}_more"], f"{name}_more", axis=-1),
        ]
        self.before[f"sums of {name}"] = nodes
        return f"{name}_more"

    def _weight(self, node: Any, weight: str) -> _Known:
        if weight in self.known:
            return self.known[weight]
        bits, most, zero = self._bits(node.name)
        rows = np.ascontiguousarray(self.weights[weight].T)
        size, seen = block_size(rows.shape[1], most), self.seen.get(node.input[0])
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % size)))
        if seen is None or bits > 4 or padded.shape != rows.shape:
            codes, scales, zeros = rounded(padded, bits, size, zero)
        else:
            codes, scales, zeros = gptq(rows, seen, bits, size, zero)
        width = rows.shape[1]
        if zero == "free":
            width += zeros.shape[1]
            codes, scales, zeros = _with_rests(codes, scales, zeros, bits)
        names = self._keep(weight, codes, scales, None if zero == "middle" else zeros, bits)
        self.known[weight] = _Known(names, bits, size, width)
        return self.known[weight]

    def _keep(
        self, weight: str, codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, bits: int
    ) -> list[str]:
        from onnx import TensorProto, helper

        names = [f"{weight}_q{bits}", f"{weight}_scales"]
        add_constant(self.model, names[0], pack_nibbles(codes) if bits == 4 else codes)
        add_constant(self.model, f"{names[1]}_fp16", scales.astype(np.float16))
        about: dict[str, Any] = {"to": TensorProto.FLOAT}
        self.before[f"scales of {weight}"] = [
            helper.make_node("Cast", [f"{names[1]}_fp16"], [names[1]], f"{names[1]}_widen", **about)
        ]
        if zeros is not None:
            names.append(f"{weight}_zeros")
            whole = zeros.astype(np.uint8)
            even = np.pad(whole, ((0, 0), (0, whole.shape[1] % 2)))
            add_constant(self.model, names[2], pack_nibbles(even) if bits == 4 else whole)
        return names

    def _bits(self, node: str) -> tuple[int, int, Zero]:
        told = self.blocks
        if "lm_head" in node:
            return told.head_bits, told.head_block, "middle"
        attention = any(part in node for part in ("qkv_proj", "q_proj", "k_proj", "v_proj", "c_attn"))
        bits = told.attention_bits if attention else told.bits
        return bits, told.block, told.zero if bits == 4 else "middle"


def _with_rests(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray, bits: int) -> Codes:
    """Free zero points → whole ones, and blocks of columns that hold the rests."""
    size, most = codes.shape[2], (1 << bits) - 1
    whole = np.clip(np.rint(zeros), 0, most)
    rests = np.pad((whole - zeros) * scales, ((0, 0), (0, -zeros.shape[1] % size)))
    more = rounded(rests, bits, size, "middle")
    return tuple(np.concatenate(pair, axis=1) for pair in zip((codes, scales, whole), more, strict=True))  # type: ignore[return-value]


def _contrib(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str, about: dict[str, Any]
) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, outputs, name, domain="com.microsoft", **about)
