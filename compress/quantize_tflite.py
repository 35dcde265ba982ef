"""TFLite graph → quantized graph after training, by ai-edge-quantizer. Run through `in_child`."""

from typing import Any


def tflite_dynamic_wi8_afp32(source: str, target: str) -> None:
    """int8 weights per channel, activations quantized on the fly per token, fp32 at every border."""
    from ai_edge_quantizer import recipe

    _quantize(source, target, recipe.dynamic_wi8_afp32())


def tflite_weight_only_wi8_afp32(source: str, target: str) -> None:
    """int8 weights per channel that the engine widens at load; computed in fp32."""
    from ai_edge_quantizer import recipe

    _quantize(source, target, recipe.weight_only_wi8_afp32())


def tflite_dynamic_wi4_afp32(source: str, target: str) -> None:
    """int4 weights in blocks of 32 inputs, tables in int4; activations quantized on the fly to int8."""
    from ai_edge_quantizer import recipe

    _quantize(source, target, recipe.dynamic_wi4b32_afp32())


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
    _quantize(source, target, manager.get_quantization_recipe())


def _quantize(source: str, target: str, recipe: Any, ranges: Any = None) -> None:
    from ai_edge_quantizer import quantizer

    quantizer.Quantizer(source, recipe).quantize(ranges).export_model(target, overwrite=True)
