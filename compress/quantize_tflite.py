"""TFLite graph → quantized graph after training, by ai-edge-quantizer. Run through `in_child`."""

from pathlib import Path
from typing import Any

from compress.grid import row_scales
from compress.tflite_file import compact


def tflite_dynamic_wi8_afp32(source: str, target: str) -> None:
    """int8 weights per channel, activations quantized on the fly per token, fp32 at every border."""
    from ai_edge_quantizer import recipe

    quantize(source, target, recipe.dynamic_wi8_afp32())


def tflite_weight_only_wi8_afp32(source: str, target: str) -> None:
    """int8 weights per channel that the engine widens at load; computed in fp32."""
    from ai_edge_quantizer import recipe

    quantize(source, target, recipe.weight_only_wi8_afp32())


def tflite_dynamic_wi4_afp32(source: str, target: str) -> None:
    """int4 weights in blocks of 32 inputs, tables in int4; activations quantized on the fly to int8.

    Weights that were trained to lie on a grid with one scale a row keep it, which saves the blocks' scales.
    """
    from ai_edge_quantizer import recipe

    quantize(
        source, target, recipe.dynamic_wi4_afp32() if by_row(source, 4) else recipe.dynamic_wi4b32_afp32()
    )


def by_row(source: str, bits: int) -> bool:
    """Whether the weights of all linear layers lie on the row grid (see `compress.grid`)."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flat

    model = flat.read_model(Path(source))
    for graph in model.subgraphs:
        for node in graph.operators:
            if model.operatorCodes[node.opcodeIndex].builtinCode == qtyping.BuiltinOperator.FULLY_CONNECTED:
                weight = flat.get_tensor_data(graph.tensors[node.inputs[1]], model.buffers)
                if weight is None or row_scales(weight, bits) is None:
                    return False
    return True


def tflite_fp16(source: str, target: str) -> None:
    """Weights stored in fp16 that the engine widens at load; computed in fp32."""
    from ai_edge_quantizer import qtyping, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=half,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    manager = recipe_manager.RecipeManager()
    for operation in (qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.EMBEDDING_LOOKUP):
        manager.add_quantization_config(".*", operation, config, AlgorithmName.FLOAT_CASTING)
    quantize(source, target, manager.get_quantization_recipe())


def quantize(source: str, target: str, recipe: Any) -> None:
    """By a recipe that needs no calibration; the file is compacted."""
    from ai_edge_quantizer import quantizer

    quantizer.Quantizer(source, recipe).quantize().export_model(target, overwrite=True)
    compact(target)
