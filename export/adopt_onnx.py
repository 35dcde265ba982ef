"""An ONNX graph of any input names → the same graph with the bundle's names, types and logits. In a child."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from export import adopt
from runtimes.errors import EngineError, InputError

_FLOAT, _FLOAT16, _INT32, _INT64 = 1, 10, 6, 7  # TensorProto.DataType
_INT4 = (21, 22)
_INTEGER_OPS = {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DequantizeLinear", "QGemm"}
_INTEGER_OPS |= {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QAttention", "DynamicQuantizeLSTM"}
_INT4_OPS = {"MatMulNBits", "GatherBlockQuantized"}
# What ids may pass through on their way to the embedding.
_HANDED_ON = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}


def adopt_onnx(
    source: str, target: str, labels: int, largest_id: int, max_tokens: int | None, fallback: int
) -> dict[str, Any]:
    """Write the adapted graph; return name, details, max_tokens, what was seen. Runs through `in_child`."""
    from runtimes.engines import onnx as engine

    model = _parse(Path(source))
    inputs, batch, length = _inputs(model.graph)
    names = adopt.roles(list(inputs))
    _require_rows(model.graph, names, largest_id)
    masked = "attention_mask" in names.values()
    try:
        theirs = engine.open(Path(source), 1, {"file": "it"})
    except EngineError as error:
        raise InputError(str(error)) from None
    output = _output(model.graph, labels)

    def ask(feeds: dict[str, np.ndarray]) -> np.ndarray:
        return theirs.run({name: feeds[ours] for name, ours in names.items()})[output].astype(np.float32)

    most = adopt.most_tokens(ask, batch, length, max_tokens, fallback)
    lengths = adopt.plan_lengths(batch, length, masked, most)
    asked, answers = adopt.probe(ask, labels, largest_id, lengths, most)
    if masked and adopt.by_position(names):
        adopt.require_mask(ask, asked[-1])
    probabilities = adopt.are_probabilities(answers)
    details: dict[str, Any] = {} if lengths is None else {"lengths": lengths}
    if _differs(model.graph, inputs, names, output, probabilities):
        _adapt(model, names, output, probabilities)
        Path(target).write_bytes(model.SerializeToString())
        ours = engine.open(Path(target), 1, {"file": "it", **details})
        told = np.concatenate([ours.run(feeds)["logits"] for feeds in asked])
        adopt.require_same(answers, told, probabilities)
    else:
        Path(target).write_bytes(Path(source).read_bytes())
    seen = {"inputs": names, "output": output, "probabilities": probabilities}
    return {"name": f"onnx-{_precision(model.graph)}", "details": details, "max_tokens": most, **seen}


def _parse(source: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import uses_external_data

    try:
        model = onnx.load_model_from_string(source.read_bytes())
    except (DecodeError, ValueError) as error:
        raise InputError(f"not a whole ONNX file ({str(error)[:80]}); copy or export it again") from None
    if not model.graph.node or not model.graph.output:
        raise InputError("no graph in it, so not a whole ONNX file; copy or export it again")
    if any(uses_external_data(tensor) for graph in _graphs(model.graph) for tensor in graph.initializer):
        raise InputError(
            "it keeps its weights in other files; save it whole, onnx.save(onnx.load('a.onnx'), 'b.onnx')"
        )
    return model


def _graphs(graph: Any) -> Iterator[Any]:
    """The graph and all that its nodes hold."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _inputs(graph: Any) -> tuple[dict[str, int], int | None, int | None]:
    """Input name → element type; the batch and the length where they are fixed."""
    weights = {tensor.name for tensor in graph.initializer}
    found = [value for value in graph.input if value.name not in weights]
    if not found:
        raise InputError("it has no input; export it with token ids as its input")
    types, batches, lengths = {}, set(), set()
    for value in found:
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        if tensor.elem_type == 8:
            raise InputError(f"input {value.name!r} takes raw strings; export the part behind the tokenizer")
        if tensor.elem_type not in (_INT64, _INT32, _FLOAT) or len(dims) != 2:
            raise InputError(
                f"input {value.name!r} is not token ids: int64 or int32 (batch, length) is needed"
            )
        types[value.name] = tensor.elem_type
        batches.add(dims[0] or None)
        lengths.add(dims[1] or None)
    if len(batches) > 1 or len(lengths) > 1:
        raise InputError(f"inputs {', '.join(types)} have different shapes; export them with one shape")
    return types, batches.pop(), lengths.pop()


def _output(graph: Any, labels: int) -> str:
    """The output that holds the logits: by its name, by its last dimension, or as the only one."""
    names = [value.name for value in graph.output]
    if "logits" in names or len(names) == 1:
        return "logits" if "logits" in names else names[0]
    fits = []
    for value in graph.output:
        dims = value.type.tensor_type.shape.dim
        kind = value.type.tensor_type.elem_type
        if kind in (_FLOAT, _FLOAT16) and len(dims) == 2 and dims[1].dim_value in (0, labels):
            fits.append(value.name)
    if len(fits) != 1:
        raise InputError(f"which of the outputs {', '.join(names)} has the logits? name it 'logits'")
    return fits[0]


def _require_rows(graph: Any, names: dict[str, str], largest_id: int) -> None:
    """The embedding must have a row for each id of the tokenizer, where it can be found."""
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    ids = {name for name, role in names.items() if role == "input_ids"}
    for node in graph.node:
        if node.op_type in _HANDED_ON and node.input[0] in ids:
            ids.add(node.output[0])
        if node.op_type == "Gather" and node.input[1] in ids:
            rows = (weights.get(node.input[0]) or [None])[0]
            if rows is not None and rows <= largest_id:
                raise InputError(
                    f"its embedding has {rows} rows, but the tokenizer's ids go up to {largest_id}: the "
                    "tokenizer is of another model"
                )


def _differs(graph: Any, inputs: dict[str, int], names: dict[str, str], output: str, log: bool) -> bool:
    own = all(name == ours for name, ours in names.items()) and all(t == _INT64 for t in inputs.values())
    kind = graph.output[0].type.tensor_type.elem_type
    return log or not own or output != "logits" or len(graph.output) != 1 or kind != _FLOAT


def _adapt(model: Any, names: dict[str, str], output: str, probabilities: bool) -> None:
    """Nodes at the border: casts of ours to theirs in front; one float output named logits behind.

    Probabilities become their logarithms, which a softmax gives back as they were.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    _free_names(model, {*names.values(), "logits"} - {*names, output})
    types = {value.name: value.type.tensor_type for value in graph.input if value.name in names}
    # Their names may be ours in another role or type: what the graph uses inside is renamed out of the way.
    inside = {name: f"adopted/{name}" for name in (*names, output)}
    _rename(graph, inside)
    front, fresh = [], []
    for name, ours in names.items():
        shape = [dim.dim_value or dim.dim_param or None for dim in types[name].shape.dim]
        fresh.append(helper.make_tensor_value_info(ours, TensorProto.INT64, shape))
        front.append(helper.make_node("Cast", [ours], [inside[name]], to=types[name].elem_type))
    last = inside[output]
    back = [helper.make_node("Cast", [last], ["adopted/float"], to=_FLOAT)]
    if probabilities:
        graph.initializer.append(helper.make_tensor("adopted/floor", _FLOAT, [], [adopt.FLOOR]))
        back += [
            helper.make_node("Max", ["adopted/float", "adopted/floor"], ["adopted/floored"]),
            helper.make_node("Log", ["adopted/floored"], ["logits"]),
        ]
    else:
        back[0].output[0] = "logits"
    kept = [value for value in graph.input if value.name not in inside.values()]
    batch = next(iter(types.values())).shape.dim[0]
    labels = helper.make_tensor_value_info("logits", _FLOAT, [batch.dim_value or "batch", None])
    nodes = [*front, *graph.node, *back]
    for field, values in (("input", [*fresh, *kept]), ("output", [labels]), ("node", nodes)):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(values)


def _free_names(model: Any, wanted: set[str]) -> None:
    """A name that we need may be taken inside the graph."""
    _rename(model.graph, {name: f"theirs/{name}" for name in wanted})


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Values of the graph, wherever they are used."""
    for one in _graphs(graph):
        for node in one.node:
            for side in (node.input, node.output):
                for place, name in enumerate(side):
                    side[place] = names.get(name, name)
        for value in (*one.input, *one.output, *one.value_info, *one.initializer):
            value.name = names.get(value.name, value.name)


def _bits(node: Any) -> int:
    """Bits a weight of a block-wise operator: 4 where it does not say."""
    return next((int(one.i) for one in node.attribute if one.name == "bits"), 4)


def _precision(graph: Any) -> str:
    nodes = [node for one in _graphs(graph) for node in one.node]
    ops = {node.op_type for node in nodes}
    types = {tensor.data_type for one in _graphs(graph) for tensor in one.initializer}
    blocks = {node.op_type: _bits(node) for node in nodes if node.op_type in _INT4_OPS}
    if 4 in blocks.values() or types & set(_INT4):
        return "int4"
    if "MatMulNBits" in blocks:
        return "wi8"
    if blocks or ops & _INTEGER_OPS:
        return "int8"
    return "fp16" if _FLOAT16 in types else "fp32"
