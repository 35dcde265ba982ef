"""One layer's weights are spoiled on purpose: that very layer and tensor must be named, on both engines."""

import json
import shutil

import numpy as np
import pytest

from export.advise import Makings, nearest_passing
from export.diagnose import fault_of, guilty_layer, layer_errors
from export.gate import Budget, gate
from export.pack import slim
from export.variant import KNOWN
from runtimes.bundle import open_bundle, seal
from runtimes.errors import GateError
from runtimes.load import load

INT8 = {"onnx": "onnx-int8", "litert": "tflite-dynamic_wi8_afp32"}


def spoil_onnx(data: bytes, words: tuple[str, ...], plain: bytes) -> bytes:
    """The graph with the integer weights of the nodes whose name holds all `words` in reverse order."""
    import onnx

    model = onnx.load_from_string(data)
    nodes = [node for node in model.graph.node if all(word in f"{node.name} {node.output}" for word in words)]
    used = {name for node in nodes for name in node.input}
    hit = 0
    for tensor in model.graph.initializer:
        weight = onnx.numpy_helper.to_array(tensor)
        if tensor.name in used and weight.dtype.kind in "iu" and weight.size > 64:
            turned = np.ascontiguousarray(weight.ravel()[::-1].reshape(weight.shape))
            tensor.CopyFrom(onnx.numpy_helper.from_array(turned, tensor.name))
            hit += 1
    assert hit == 1, f"{hit} weights are named so"
    return model.SerializeToString()


def linear_layers(data: bytes):
    """The linear layers of a .tflite's first graph: names of their weights, and these as writable bytes."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    weights = []
    for op in (graph.Operators(index) for index in range(graph.OperatorsLength())):
        code = model.OperatorCodes(op.OpcodeIndex())
        if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) == schema.BuiltinOperator.FULLY_CONNECTED:
            weights.append(graph.Tensors(op.Inputs(1)))
    # The last of the modules that a tensor is named for is its own.
    own = [(one.Name() or b"").decode().rstrip(";0123456789").split(";")[-1] for one in weights]
    return own, [model.Buffers(one.Buffer()).DataAsNumpy() for one in weights]


def spoil_tflite(data: bytes, words: tuple[str, ...], plain: bytes) -> bytes:
    """The names stand in the fp32 graph alone: its linear layers are those of the quantized one."""
    changed = bytearray(data)
    (at,) = [place for place, name in enumerate(linear_layers(plain)[0]) if all(w in name for w in words)]
    weight = linear_layers(changed)[1][at]
    weight[:] = weight[::-1].copy()
    return bytes(changed)


def spoiled(source, out, name, spoil, words):
    """A copy of the bundle with that variant spoiled."""
    shutil.copytree(source, out)
    manifest = json.loads((out / "bundle.json").read_text())
    file, plain = (out / manifest["variants"][one]["file"] for one in (name, KNOWN[name][2]))
    file.write_bytes(spoil(file.read_bytes(), words, plain.read_bytes()))
    seal(out, manifest, manifest["files"])
    return open_bundle(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "spoil", "words", "place", "tensor"),
    [
        ("onnx", spoil_onnx, ("layer.1/intermediate",), "layer 1 (feed-forward)", "intermediate.dense"),
        ("onnx", spoil_onnx, ("layer.2/attention/output",), "layer 2 (attention)", "attention.output.dense"),
        ("litert", spoil_tflite, ("BertLayer_1/", "BertIntermediate"), "layer 1 (feed-forward)",
         "encoder.1.intermediate.dense"),
        ("litert", spoil_tflite, ("BertLayer_2/", "BertSelfOutput"), "layer 2 (attention)",
         "encoder.2.attention.output.dense"),
    ],
)  # fmt: skip
def test_a_spoiled_layer_is_named(engine, spoil, words, place, tensor, tiny_bundle, tmp_path):
    bundle = spoiled(tiny_bundle, tmp_path / "x.bundle", INT8[engine], spoil, words)
    said = guilty_layer(bundle, INT8[engine])
    assert f"grows most in {place} (relative error" in said and f"{tensor} (relative error" in said


@pytest.mark.slow
def test_the_gate_names_layer_tensor_and_what_passes(tiny_bundle, tmp_path):
    """The gate says it all for TFLite; what it recommends is really in the budget."""
    spoiled(
        tiny_bundle, tmp_path / "x.bundle", INT8["litert"], spoil_tflite, ("BertLayer_1/", "BertIntermediate")
    )
    slim(tmp_path / "x.bundle", [INT8["litert"], "tflite-fp32"], tmp_path / "y.bundle")
    with pytest.raises(
        GateError, match=r"tflite-dynamic_wi8_afp32 .*layer 1 .*nearest that passes is tflite-"
    ):
        gate(tmp_path / "y.bundle", Budget(min_cosine=0.9999))


@pytest.mark.slow
def test_whole_variants_have_small_errors_on_both_engines(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    for name in INT8.values():
        errors = layer_errors(bundle, name)
        first, *layers, last = errors
        assert (first, last) == ("the embeddings", "the head")
        assert layers == [f"layer {n} ({part})" for n in range(3) for part in ("attention", "feed-forward")]
        assert all(0 < error < 0.2 for error in errors.values())


@pytest.mark.slow
def test_advice_is_made_and_checked(tiny_bundle):
    """The neighbours are asked in order, as bundles that answer; the first that passes is named."""
    bundle, asked = open_bundle(tiny_bundle), []

    def passes(path, name):
        asked.append(name)
        assert load(path, variant=name, threads=1)("wheat corn harvest").label == "grain"
        return name == "onnx-fp32"

    said = nearest_passing(bundle, "onnx-int8", Makings(), passes)
    assert asked[-1] == "onnx-fp32" and "the nearest that passes is onnx-fp32 (0." in said
    said = nearest_passing(bundle, "tflite-dynamic_wi8_afp32", Makings(), lambda path, name: False)
    assert said.startswith("; none of ") and said.endswith("tflite-fp32 passes either")
    assert nearest_passing(bundle, "onnx-fp32", Makings(), passes) == ""
    assert nearest_passing(bundle, "onnx-int8", Makings(advise=False), passes) == ""
    late = nearest_passing(bundle, "onnx-int8", Makings(), passes, seconds=-1)
    assert late == "; no other variant was tried (the time for further tries was up)"


def test_without_an_fp32_graph_nothing_is_located(tiny_bundle, tmp_path):
    bundle = open_bundle(slim(tiny_bundle, ["onnx-int8"], tmp_path / "x.bundle"))
    assert "no fp32 graph to compare onnx-int8 with is at hand" in guilty_layer(bundle, "onnx-int8")
    assert nearest_passing(bundle, "onnx-int8", Makings(), lambda path, name: True) == ""


@pytest.mark.slow
def test_an_fp32_graph_beside_the_bundle_serves_too(tiny_bundle, tiny_variants, tmp_path):
    bundle = open_bundle(slim(tiny_bundle, ["onnx-int8"], tmp_path / "x.bundle"))
    parents = [tiny_variants["onnx-fp32"]]
    assert "grows most in" in guilty_layer(bundle, "onnx-int8", parents)
    said = nearest_passing(bundle, "onnx-int8", Makings(parents), lambda path, name: name == "onnx-fp32")
    assert "the nearest that passes is onnx-fp32" in said


def test_a_graph_that_cannot_run_does_not_hide_the_verdict(tiny_bundle, tmp_path):
    bundle = spoiled(tiny_bundle, tmp_path / "x.bundle", "onnx-int8", lambda *_: b"none", ())
    assert guilty_layer(bundle, "onnx-int8").startswith(", layer not located (")


def row(tensor, error, state=False):
    return {"tensor": tensor, "place": tensor, "error": error, "state": state}


def test_the_fault_is_where_the_error_grows_not_where_it_is_largest():
    errors = [
        row("table", 0.01), row("embeddings", 0.01, True),
        row("query", 0.02), row("out", 0.6), row("sum", 0.5), row("layer 0", 0.5, True),
        row("up", 0.7), row("layer 1", 0.6, True),
    ]  # fmt: skip
    fault = fault_of(errors)
    assert fault["tensor"] == "out" and fault["place"] == "layer 0" and fault["grown"] == 0.5
    assert fault_of([row("a", 0.1), row("b", 0.9), row("c", 0.8)])["tensor"] == "b", "no states: by tensor"
    assert fault_of([]) is None
