"""A .tflite made smaller without a change to what it computes."""

from pathlib import Path
from typing import Any

import numpy as np


def compact(path: str) -> None:
    """Rewrite the file: names of inner tensors dropped, and equal scales written once.

    Each signature is a graph with tensors of its own, so a converter repeats the scales of every channel,
    and their zero points in 8 bytes each, as often as there are signatures. Inputs and outputs keep their
    names. Source: the TFLite schema (FlatBuffers may share vectors).
    """
    import flatbuffers
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(path)
    for graph in model.subgraphs:
        border = {*graph.inputs, *graph.outputs}
        for index, tensor in enumerate(graph.tensors):
            tensor.name = tensor.name if index in border else b""
            _short(tensor.quantization)
    for buffer in model.buffers:
        if buffer.data is not None:  # as bytes they would be written one by one, a minute for 90 MB
            buffer.data = np.frombuffer(buffer.data, np.uint8)

    class Sharing(flatbuffers.Builder):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self._written: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: np.ndarray) -> int:
            if x.dtype == np.uint8:  # weights have buffers of their own and differ
                self.Prep(16, x.nbytes)  # the schema's force_align, which the Python builder leaves out
                return int(super().CreateNumpyVector(x))
            key = (x.dtype.str, x.tobytes())
            if key not in self._written:
                self._written[key] = int(super().CreateNumpyVector(x))
            return self._written[key]

    builder = Sharing(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    Path(path).write_bytes(builder.Output())


def _short(quantization: Any) -> None:
    if quantization is None or quantization.scale is None:
        return
    quantization.scale = np.asarray(quantization.scale, np.float32)
    if quantization.zeroPoint is not None:
        zeros = np.asarray(quantization.zeroPoint, np.int64)
        quantization.zeroPoint = zeros
    quantization.min = quantization.max = None
