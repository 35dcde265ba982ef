"""What is quantized in each ONNX variant, and that NNCF tells nobody."""

import os
from pathlib import Path

import numpy as np
import pytest

from compress.child import in_child


def kinds(variant):
    import onnx

    model = onnx.load(variant.path)
    wide = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    return {node.op_type for node in model.graph.node}, [t.name for t in wide if np.prod(t.dims) > 4096]


def test_attention_is_one_operator_and_nothing_is_skip_normalised(tiny_variants):
    operators, wide = kinds(tiny_variants["onnx-int8"])
    assert {"QAttention", "GatherBlockQuantized", "Sum", "LayerNormalization"} <= operators
    assert not {"SkipLayerNormalization", "Softmax", "Gather"} & (operators - {"Gather"})
    assert not wide, "a weight that stayed in fp32"


@pytest.mark.parametrize("name", ["onnx-wi8", "onnx-int4"])
def test_weights_and_tables_are_in_blocks(name, tiny_extra):
    operators, wide = kinds(tiny_extra(name))
    assert {"MatMulNBits", "GatherBlockQuantized", "MultiHeadAttention"} <= operators
    assert "MatMul" not in operators and not wide


def test_static_activations_are_unsigned(tiny_extra):
    import onnx

    model = onnx.load(tiny_extra("onnx-static_int8").path)
    types = {t.name: t.data_type for t in model.graph.initializer}
    zeros = {types[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert zeros == {onnx.TensorProto.UINT8}


def test_a_smaller_precision_is_a_smaller_file(tiny_variants, tiny_extra):
    sizes = [
        variant.path.stat().st_size
        for variant in (tiny_variants["onnx-fp32"], tiny_extra("onnx-fp16"), tiny_extra("onnx-int4"))
    ]
    assert sizes == sorted(sizes, reverse=True)


def look_out() -> list[str]:
    """Import NNCF with the network cut; name what was tried."""
    import socket

    tried = []
    socket.socket.connect = lambda self, address: tried.append(str(address))  # type: ignore
    import nncf
    from nncf.telemetry import telemetry

    telemetry.start_session("onnx")
    telemetry.send_event("a", "b", "c")
    telemetry.end_session("onnx")
    return [nncf.__version__, *tried]


def test_nncf_sends_nothing_and_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))  # noqa: PTH120
    assert len(in_child(look_out)) == 1
    assert not [path for path in Path(tmp_path).rglob("*") if "intel" in str(path).lower()]
