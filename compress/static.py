"""Static int8 of an ONNX graph: ranges of activations are set from calibration rows, by NNCF."""

from typing import Any

import numpy as np

from compress.blockwise import quantize_products, quantize_tables
from compress.calibrate import read_rows, single_feeds
from compress.graph import Model, constants, place, products, simplified, tables, without_orphans


def onnx_static_int8(source: str, target: str, rows: str) -> dict[str, Any]:
    """Products with int8 weights and uint8 activations of fixed ranges (SmoothQuant, bias correction).

    NNCF's own answer is slower than fp32 on ONNX Runtime, for reasons that docs/quantization.md measures.
    What is done about them: activations are unsigned, tables are read before they are widened, products of
    two activations stay in fp32, and the head has int8 weights only. `rows`: see `calibrate.write_rows`.
    """
    import onnx

    model = simplified(onnx.load(source))
    read = read_rows(rows)
    quantized = unsigned_activations(_nncf(model, read))
    quantize_tables(quantized, dict.fromkeys(tables(quantized), 8), 128)
    head = [name for name in products(quantized) if place(name) == "head"]
    onnx.save(quantize_products(quantized, dict.fromkeys(head, 8), 128), target)
    return {"calibration_rows": len(read["labels"])}


def _nncf(model: Model, rows: dict[str, np.ndarray]) -> Model:
    import nncf

    names = [node.name for node in model.graph.input]
    weighted = products(model)
    products_of_two = [n.name for n in model.graph.node if n.op_type == "MatMul" and n.name not in weighted]
    head = [name for name in weighted if place(name) == "head"]
    scope = nncf.IgnoredScope(names=[*products_of_two, *head], types=["Gather"], validate=False)
    return nncf.quantize(
        model,
        nncf.Dataset(single_feeds(rows, names)),
        subset_size=len(rows["labels"]),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=scope,
    )


def unsigned_activations(model: Model) -> Model:
    """Zero points of activations from int8 to uint8 with the same meaning: only that is fused on x86."""
    from onnx import numpy_helper

    weights = constants(model)
    shifted = {
        node.input[2]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0] not in weights
    }
    for tensor in model.graph.initializer:
        zero = weights[tensor.name]
        if tensor.name in shifted and zero.dtype == np.int8:
            tensor.CopyFrom(
                numpy_helper.from_array((zero.astype(np.int16) + 128).astype(np.uint8), tensor.name)
            )
    return without_orphans(model)
