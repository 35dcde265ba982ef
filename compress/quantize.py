"""Graph → quantized graph, after training and without calibration data.

Weights become int8, activations are quantized on the fly ("dynamic"). Both functions are plain
path → path, run through `compress.child.in_child`.
"""


def onnx_dynamic_int8(source: str, target: str) -> None:
    """ONNX Runtime's dynamic quantization: symmetric int8 weights, one scale per output channel.

    Embeddings are quantized too. Source: ONNX Runtime's quantization guide.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)


def tflite_dynamic_wi8_afp32(source: str, target: str) -> None:
    """ai-edge-quantizer's recipe of that name: int8 weights per channel, fp32 at every border."""
    from ai_edge_quantizer import quantizer, recipe

    result = quantizer.Quantizer(source, recipe.dynamic_wi8_afp32()).quantize()
    result.export_model(target, overwrite=True)
