"""Which layer of a quantized graph looks guilty: its error against the fp32 graph, layer by layer."""

import re
from pathlib import Path

import numpy as np

from runtimes.bundle import Bundle
from runtimes.engines.onnx import OnnxSession
from runtimes.engines.onnx import open as open_onnx
from runtimes.errors import EngineError

_LAYER = re.compile(r"layer\.(\d+)")


def guilty_layer(bundle: Bundle, name: str) -> str:
    """ ", ..." for the gate's message: where the relative error grows most, or why that is not known."""
    if bundle.variants[name]["engine"] != "onnx" or "onnx-fp32" not in bundle.variants or name == "onnx-fp32":
        return ", layer not located (only ONNX graphs beside onnx-fp32 are compared by layer)"
    try:
        errors = layer_errors(bundle, name)
    except EngineError:  # a graph of fixed shape, of other inputs
        errors = {}
    if not errors:
        return ", layer not located (the graphs share no normalised hidden states)"
    growth = np.diff([0.0, *errors.values()])
    place = list(errors)[int(growth.argmax())]
    return f", error grows most in {place} (relative error {errors[place]:.2g} there)"


def layer_errors(bundle: Bundle, name: str) -> dict[str, float]:
    """Relative L2 error of each layer's normalised output on the golden inputs, in graph order."""
    import onnx

    sources = {key: bundle.read(bundle.variants[key]["file"]) for key in ("onnx-fp32", name)}
    graphs = {key: onnx.load_from_string(source) for key, source in sources.items()}
    made = [{out for node in graph.graph.node for out in node.output} for graph in graphs.values()]
    taps = [
        node.output[0]
        for node in graphs["onnx-fp32"].graph.node
        if node.op_type == "LayerNormalization" and all(node.output[0] in outputs for outputs in made)
    ]
    golden = bundle.golden()
    feeds = {key: golden[key] for key in ("input_ids", "attention_mask")}
    feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
    want, got = (_tapped(graph, taps).run(feeds) for graph in graphs.values())
    mask = golden["attention_mask"].astype(bool)
    return {
        _readable(tap): float(
            np.linalg.norm((got[tap] - want[tap])[mask]) / max(float(np.linalg.norm(want[tap][mask])), 1e-12)
        )
        for tap in taps
    }


def _tapped(graph: "onnx.ModelProto", taps: list[str]) -> OnnxSession:  # type: ignore[name-defined] # noqa: F821
    import onnx

    graph.graph.output.extend(onnx.ValueInfoProto(name=tap) for tap in taps)
    return open_onnx(graph.SerializeToString(), 1, {"file": str(Path("diagnosis"))})


def _readable(tensor: str) -> str:
    layer = _LAYER.search(tensor)
    if layer is None:
        return "the embeddings"
    return f"layer {layer.group(1)} ({'attention' if 'attention' in tensor else 'feed-forward'})"
