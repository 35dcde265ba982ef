"""Which layer and which tensor of a quantized graph are at fault: its error against the fp32 graph.

Hidden states after each normalisation say in which layer the error grows most; within that layer the first
tensor that already has most of the error is named. ONNX tensors are matched by name, TFLite operators by
their order. The graphs run in a child process on a few golden inputs, TFLite with its built-in kernels: with
the delegate no tensor between inputs and outputs can be read.
"""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.child import in_child
from export.advise import parent_graph
from export.diagnose_graphs import errors_by_tensor
from export.variant import Variant
from runtimes.bundle import Bundle
from runtimes.errors import EdgewiseError, InputError

_INPUTS = 8
_LAYER = re.compile(r"(?:[Ll]ayer|Block)[._](\d+)")
# What the ONNX converter adds to a module's path.
_OPERATION = re.compile(r"/[A-Z]\w*_output_\d+$")


def guilty_layer(bundle: Bundle, name: str, parents: Sequence[Variant] = ()) -> str:
    """ ", ..." for the gate's message: where the relative error grows most, or why that is not known.

    `parents`: fp32 graphs that the bundle does not hold itself.
    """
    try:
        errors = tensor_errors(bundle, name, parents)
    except (EdgewiseError, ImportError) as error:  # the gate's own verdict must be heard
        return f", layer not located ({error})"
    fault = fault_of(errors)
    if fault is None:
        return ", layer not located (the graphs share no tensors)"
    where = f", error grows most in {fault['place']} (relative error {fault['grown']:.2g} there)"
    return f"{where}, first in {fault['tensor']} (relative error {fault['error']:.2g})"


def layer_errors(bundle: Bundle, name: str) -> dict[str, float]:
    """Relative L2 error of each layer's normalised output, and of the head's logits, in graph order."""
    return {row["place"]: row["error"] for row in tensor_errors(bundle, name) if row["state"]}


def tensor_errors(bundle: Bundle, name: str, parents: Sequence[Variant] = ()) -> list[dict[str, Any]]:
    """Tensors that the variant shares with its fp32 graph, in graph order.

    Each with `tensor` (its module's path), `place` ("layer 3 (attention)"), `state` (a normalised hidden
    state, or the logits) and `error`: L2 norm of the difference over that of the fp32 tensor, padding left
    out, over a few golden inputs. Raises InputError where there is no fp32 graph or a graph cannot be run.
    """
    about, parent = bundle.variants[name], parent_graph(bundle, name, parents)
    if parent is None:
        raise InputError(f"no fp32 graph to compare {name} with is at hand")
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        paths = {role: Path(folder) / role for role in ("want", "got")}
        paths["want"].write_bytes(parent[1])
        paths["got"].write_bytes(bundle.read(about["file"]))
        golden, inputs = bundle.golden(), Path(folder) / "inputs.npz"
        keys = ("values",) if "values" in golden else ("input_ids", "attention_mask")
        rows = np.unique(np.linspace(0, len(golden["labels"]) - 1, _INPUTS).astype(int))
        np.savez(inputs, **{key: golden[key][rows] for key in keys})
        details = {key: about.get(key) for key in ("inputs", "signatures", "engine")}
        files = {role: str(path) for role, path in paths.items()}
        found = in_child(errors_by_tensor, **files, inputs_at=str(inputs), details=details)
    return [{**row, "tensor": _readable(row["name"]), "place": _place(row["name"])} for row in found]


def fault_of(errors: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The tensor at fault, with `place` and `grown` (the error there) of the layer it spoils.

    The layer is the one over which the error of the hidden states grows most; graphs without such states
    are taken tensor by tensor. The tensor is the first of that layer with half of the layer's worst error.
    """
    if not errors:
        return None
    states = [index for index, row in enumerate(errors) if row["state"]] or list(range(len(errors)))
    growth = np.diff([0.0, *(errors[index]["error"] for index in states)])
    at = int(growth.argmax())
    start = states[at - 1] + 1 if at else 0
    inside = errors[start : states[at] + 1]
    worst = max(row["error"] for row in inside)
    first = next(row for row in inside if row["error"] >= worst / 2)
    spoiled = errors[states[at]]
    return {**first, "place": spoiled["place"], "grown": spoiled["error"]}


def _place(name: str) -> str:
    layer, path = _LAYER.search(name), name.lower()
    if layer is not None:
        return f"layer {layer.group(1)} ({'attention' if 'attention' in path else 'feed-forward'})"
    return "the embeddings" if "embedding" in path else "the head"


def _readable(name: str) -> str:
    """A module's path without what the converters add: "bert.encoder.layer.1.intermediate.dense"."""
    name = _OPERATION.sub("", name)
    parts = [part.rsplit(".", 1)[-1] if part.count(".") > 1 else part for part in name.split("/") if part]
    parts = [re.sub(r"^[A-Z]\w*?_(?=\w)", "", part) for part in parts]  # LiteRT: Linear_dense
    return ".".join(parts).removeprefix("Logits.model.") or name
