"""ONNX graph surgery that comes before quantization. Each function changes the model that it is given."""

import logging
import re
from collections.abc import Callable
from typing import Any

import numpy as np

Model = Any  # onnx.ModelProto: onnx is imported where a model is at hand
# PyTorch's layer.3, and the class names that litert-torch puts in front: BertLayer_3, TransformerBlock_3.
_LAYER = re.compile(r"(?:[Ll]ayers?|Block)[._](\d+)")


def constants(model: Model) -> dict[str, np.ndarray]:
    """The initializers by name; external or raw, as numpy arrays."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def fused(model: Model, attention: str = "MultiHeadAttention") -> Model:
    """Attention and GELU as one operator each, by onnxruntime.transformers; `simplified` besides.

    `attention` is "Attention" (one packed weight for query, key and value: fastest in int8) or
    "MultiHeadAttention" (three products stay apart, so that each can have a precision of its own).
    LayerNormalization is not fused with the residual sum: ONNX Runtime 1.32 computes the fused operator
    seven times slower on a CPU. A graph that the patterns do not fit stays as it is.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    options.enable_embed_layer_norm = options.enable_bias_gelu = False
    options.use_multi_head_attention = attention == "MultiHeadAttention"
    options.use_raw_attention_mask(True)  # the other format takes every padding for one at the right
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    found = optimizer.optimize_model(model, "bert", optimization_options=options, opt_level=0)
    return simplified(found.model)


def simplified(model: Model) -> Model:
    """Gemm as MatMul and Add (which quantizers know), and residual sums that the engine leaves alone."""
    _split_gemm(model)
    normalised = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    for node in model.graph.node:
        # Sum is Add, but no engine fuses it into the slow SkipLayerNormalization.
        if node.op_type == "Add" and node.output[0] in normalised:
            node.op_type = "Sum"
    return without_orphans(model)


def _split_gemm(model: Model) -> None:
    from onnx import helper

    weights = constants(model)

    def split(node: Any) -> list[Any]:
        about = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        plain = about.get("alpha", 1.0) == 1.0 and about.get("beta", 1.0) == 1.0 and not about.get("transA")
        if node.op_type != "Gemm" or not plain or node.input[1] not in weights or len(node.input) < 3:
            return [node]
        weight = weights[node.input[1]]
        turned = f"{node.input[1]}_turned" if about.get("transB") else node.input[1]
        if about.get("transB"):
            add_constant(model, turned, np.ascontiguousarray(weight.T))
        product = f"{node.output[0]}_product"
        return [
            helper.make_node(
                "MatMul", [node.input[0], turned], [product], node.name.replace("Gemm", "MatMul")
            ),
            helper.make_node("Add", [product, node.input[2]], list(node.output), f"{node.name}_bias"),
        ]

    rewrite(model, split)


def rewrite(model: Model, step: Callable[[Any], list[Any]]) -> None:
    """Replace each node by what `step` makes of it."""
    nodes = [made for node in model.graph.node for made in step(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def add_constant(model: Model, name: str, value: np.ndarray) -> None:
    from onnx import numpy_helper

    if all(tensor.name != name for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(value, name))


def without_orphans(model: Model) -> Model:
    """Drop constants that nothing reads, shapes noted for tensors, and texts for human readers."""
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    return model


def products(model: Model) -> dict[str, str]:
    """Node name → name of the constant weight (K, N), of each MatMul that has one."""
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return {
        node.name: node.input[1]
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in matrices
    }


def tables(model: Model) -> dict[str, str]:
    """Node name → name of the constant table (rows, width), of each Gather that reads embeddings."""
    from onnx import TensorProto

    matrices = {
        tensor.name
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT
    }
    return {
        node.name: node.input[0]
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[0] in matrices
    }


def place(node: str) -> str:
    """Where in an encoder a node stands, by its name: `embeddings`, `layer 3 attention`, `head` …"""
    layer = _LAYER.search(node)
    if layer is None:
        return "embeddings" if "embedding" in node else "head"
    part = "attention" if "attention" in node or re.search(r"[._/][qkv]_lin", node) else "feed-forward"
    return f"layer {layer.group(1)} {part}"
