"""ONNX graph → quantized graph after training. Plain path → path functions, run through `in_child`."""

from compress.blockwise import quantize_products, quantize_tables
from compress.graph import add_constant, constants, fused, products, tables, without_orphans


def onnx_dynamic_int8(source: str, target: str) -> None:
    """int8 weights (one scale an output channel), activations quantized on the fly, tables in int8 blocks.

    On the fused graph. Source: ONNX Runtime's quantization guide.
    """
    import onnx

    model = fused(onnx.load(source), "Attention")
    quantize_tables(model, dict.fromkeys(tables(model), 8), 128)
    dynamic_int8(model, target)


def dynamic_int8(model: object, target: str, nodes: list[str] | None = None) -> None:
    """ONNX Runtime's dynamic quantization of the products of a fused graph (of `nodes`, where given)."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        model,
        target,
        op_types_to_quantize=["MatMul", "Attention"],
        nodes_to_quantize=nodes,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def onnx_fp16(source: str, target: str) -> None:
    """Weights stored in fp16, computed in fp32: half the file, and the speed and range of fp32 on a CPU.

    A CPU has fast fp16 products on some ARM cores only; the engine widens the weights once, at load.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    model = without_orphans(onnx.load(source))
    wide = {
        n: w for n, w in constants(model).items() if w.dtype == np.float32 and w.ndim >= 1 and w.size > 64
    }
    casts = []
    for name, weight in wide.items():
        limit = np.finfo(np.float16).max
        add_constant(model, f"{name}_fp16", np.clip(weight, -limit, limit).astype(np.float16))
        casts.append(
            helper.make_node("Cast", [f"{name}_fp16"], [name], f"{name}_widen", to=TensorProto.FLOAT)
        )
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in wide]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def onnx_wi8(source: str, target: str) -> None:
    """Weights and tables in int8 blocks of up to 128, activations in fp32 between the products."""
    _weight_only(source, target, 8, 128)


def onnx_int4(source: str, target: str) -> None:
    """Weights and tables in int4 blocks of up to 64."""
    _weight_only(source, target, 4, 64)


def _weight_only(source: str, target: str, bits: int, most: int) -> None:
    import onnx

    model = fused(onnx.load(source))
    quantize_tables(model, dict.fromkeys(tables(model), bits), most)
    quantize_products(model, dict.fromkeys(products(model), bits), most)
    onnx.save(model, target)
