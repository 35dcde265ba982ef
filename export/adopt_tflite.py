"""A TFLite graph of any names → one with signatures by length, int32 ids, float logits. In a child."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export import adopt
from runtimes.errors import EngineError, InputError

_INTEGERS = (np.int32, np.int64)
_QUANTIZED = (np.int8, np.uint8, np.int16)


@dataclass
class _Entry:
    """One way into the graph: a signature, or the first subgraph where there is none. Names → tensors."""

    key: str | None
    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]
    length: int | None = None


def adopt_tflite(
    source: str, target: str, labels: int, largest_id: int, max_tokens: int | None, fallback: int
) -> dict[str, Any]:
    """Write the adapted graph; return name, details, max_tokens, what was seen. Runs through `in_child`."""
    data = Path(source).read_bytes()
    model, theirs = _parse(data)
    entries, names = _entries(model)
    _require_rows(model, entries[0], names, largest_id)
    masked = "attention_mask" in names.values()
    first = entries[0]
    output = _output(model, first, labels)
    step = _step(model, first, output)

    def ask(feeds: dict[str, np.ndarray]) -> np.ndarray:
        entry = _entry(entries, feeds["input_ids"].shape[1])
        return _run(theirs, model, entry, {n: feeds[o] for n, o in names.items()}, output)

    longest = entries[-1].length
    most = adopt.most_tokens(ask, 1, longest, max_tokens, fallback)
    lengths = sorted(int(entry.length or 0) for entry in entries)
    if longest is None:
        lengths = adopt.plan_lengths(1, None, masked, most) or []
    asked, answers = adopt.probe(ask, labels, largest_id, lengths, most)
    if masked and adopt.by_position(names):
        adopt.require_mask(ask, asked[-1])
    probabilities = adopt.are_probabilities(answers, step)
    if _differs(model, entries, output, probabilities):
        for entry in entries:
            _adapt(model, entry, output, probabilities, max(adopt.FLOOR, step / 2))
        _keep_signatures(model, entries)
        data = _packed(model)
    Path(target).write_bytes(data)
    details = {
        "lengths": lengths,
        "signatures": {str(length): _entry(entries, length).key for length in lengths},
        "inputs": names,
        "output": "logits",
    }
    told = _ours(target, details, asked)
    adopt.require_same(answers, told, probabilities, step)
    seen = {"inputs": names, "output": output, "probabilities": probabilities}
    return {"name": f"tflite-{_precision(model)}", "details": details, "max_tokens": most, **seen}


def _parse(data: bytes) -> tuple[Any, Any]:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray

    if data[4:8] != b"TFL3":
        raise InputError("not a TFLite file (no TFL3 mark in it); copy or convert it again")
    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(_why_not(str(error))) from None
    try:
        return read_model_from_bytearray(bytearray(data)), interpreter
    except Exception as error:  # whatever its parsers meet in a damaged file
        raise InputError(f"damaged ({type(error).__name__}); copy or convert it again") from None


def _why_not(told: str) -> str:
    line = " ".join(told.split())
    if re.search(r"Select TensorFlow op|Flex", line):
        return (
            "it needs TensorFlow's own operators (Flex), which no device runtime here has; use built-in ones"
        )
    custom = re.search(r"unresolved custom op: (\w+)", line)
    if custom:
        return f"it needs the custom operator {custom.group(1)}, which is not here; use built-in ones"
    return f"LiteRT cannot open it ({line[:160]}); copy or convert it again"


def _entries(model: Any) -> tuple[list[_Entry], dict[str, str]]:
    """The ways in that share one set of input names, by length; and which of our inputs those are."""
    found = [
        _Entry(
            _text(one.signatureKey),
            one.subgraphIndex,
            {_text(tensor.name): tensor.tensorIndex for tensor in one.inputs or []},
            {_text(tensor.name): tensor.tensorIndex for tensor in one.outputs or []},
        )
        for one in model.signatureDefs or []
    ]
    if not found:
        graph = model.subgraphs[0]
        ins, outs = (
            {_text(graph.tensors[i].name): int(i) for i in side} for side in (graph.inputs, graph.outputs)
        )
        found = [_Entry(None, 0, ins, outs)]
    else:
        for entry in found:  # a signature's inputs come in no order; its names count up
            entry.inputs = dict(sorted(entry.inputs.items(), key=lambda item: adopt.natural(item[0])))
    first = found[0]
    same = [entry for entry in found if list(entry.inputs) == list(first.inputs)]
    for entry in same:
        entry.length = _length(model, entry)
    by_length = {entry.length: entry for entry in reversed(same)}
    return sorted(by_length.values(), key=lambda e: e.length or 0), adopt.roles(list(first.inputs))


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _length(model: Any, entry: _Entry) -> int | None:
    """The length that the inputs have, None where it is free. Raises InputError for what is no token ids."""
    shapes = set()
    if not entry.inputs:
        raise InputError("it has no input; convert it with token ids as its input")
    for name, index in entry.inputs.items():
        tensor = model.subgraphs[entry.subgraph].tensors[index]
        signature = getattr(tensor, "shapeSignature", None)
        shape = [int(n) for n in (tensor.shape if signature is None or not len(signature) else signature)]
        kind = _dtype(tensor)
        if kind is None:
            raise InputError(f"input {name!r} takes raw strings; convert the part behind the tokenizer")
        if kind not in (*_INTEGERS, np.float32) or len(shape) != 2:
            raise InputError(f"input {name!r} is not token ids: int32 or int64 (1, length) is needed")
        if shape[0] not in (-1, 1):
            raise InputError(f"it takes batches of {shape[0]}; convert it with a batch of 1")
        shapes.add(shape[1])
    if len(shapes) != 1:
        raise InputError(f"inputs {', '.join(entry.inputs)} have different lengths; convert them with one")
    length = shapes.pop()
    return None if length == -1 else length


def _dtype(tensor: Any) -> Any:
    """numpy type of a tensor; None for strings and what numpy has no name for."""
    from ai_edge_litert.schema_py_generated import TensorType

    names = {value: name for name, value in vars(TensorType).items() if not name.startswith("_")}
    return getattr(np, names.get(tensor.type, "").lower(), None)


def _entry(entries: list[_Entry], length: int) -> _Entry:
    return next((entry for entry in entries if entry.length in (None, length)), entries[-1])


def _output(model: Any, entry: _Entry, labels: int) -> str:
    if len(entry.outputs) == 1:
        return next(iter(entry.outputs))
    tensors = model.subgraphs[entry.subgraph].tensors
    fits = [n for n, i in entry.outputs.items() if [int(d) for d in tensors[i].shape][1:] == [labels]]
    named = [name for name in entry.outputs if "logits" in name]
    for found in (named, fits):
        if len(found) == 1:
            return found[0]
    raise InputError(f"which of the outputs {', '.join(entry.outputs)} has the logits? name it 'logits'")


def _require_rows(model: Any, entry: _Entry, names: dict[str, str], largest_id: int) -> None:
    """The embedding must have a row for each id of the tokenizer, where it can be found."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator as Op

    graph = model.subgraphs[entry.subgraph]
    ids = {index for name, index in entry.inputs.items() if names[name] == "input_ids"}
    for operator in graph.operators or []:
        code = _code(model, operator)
        ins = [int(i) for i in operator.inputs]
        if code in (Op.CAST, Op.RESHAPE, Op.SQUEEZE, Op.EXPAND_DIMS) and ins[0] in ids:
            ids.add(int(operator.outputs[0]))
        table = {Op.GATHER: (0, 1), Op.EMBEDDING_LOOKUP: (1, 0)}.get(code)
        if table and ins[table[1]] in ids:
            tensor = graph.tensors[ins[table[0]]]
            if model.buffers[tensor.buffer].data is not None and int(tensor.shape[0]) <= largest_id:
                raise InputError(
                    f"its embedding has {int(tensor.shape[0])} rows, but the tokenizer's ids go up to "
                    f"{largest_id}: the tokenizer is of another model"
                )


def _code(model: Any, operator: Any) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def _step(model: Any, entry: _Entry, output: str) -> float:
    """What one step of a quantized output is worth; 0 for a float one."""
    tensor = model.subgraphs[entry.subgraph].tensors[entry.outputs[output]]
    if _dtype(tensor) == np.float32:
        return 0.0
    if _dtype(tensor) not in _QUANTIZED or tensor.quantization is None or tensor.quantization.scale is None:
        raise InputError(f"output {output!r} is neither float32 nor a quantized integer with its scale")
    return float(tensor.quantization.scale[0])


def _run(
    interpreter: Any, model: Any, entry: _Entry, feeds: dict[str, np.ndarray], output: str
) -> np.ndarray:
    """The user's own file, asked as it is; a quantized answer in real numbers."""
    tensors = model.subgraphs[entry.subgraph].tensors
    inputs = {name: feeds[name].astype(_dtype(tensors[index])) for name, index in entry.inputs.items()}
    target = tensors[entry.outputs[output]]
    if entry.key is not None:
        answer = interpreter.get_signature_runner(entry.key)(**inputs)[output]
    else:
        for name, index in entry.inputs.items():
            if entry.length is None:
                interpreter.resize_tensor_input(index, inputs[name].shape)
        interpreter.allocate_tensors()
        for name, index in entry.inputs.items():
            interpreter.set_tensor(index, inputs[name])
        interpreter.invoke()
        answer = interpreter.get_tensor(entry.outputs[output])
    if _dtype(target) == np.float32:
        return np.asarray(answer)
    scale, zero = target.quantization.scale[0], target.quantization.zeroPoint[0]
    return ((answer.astype(np.float32) - zero) * scale).astype(np.float32)


def _differs(model: Any, entries: list[_Entry], output: str, probabilities: bool) -> bool:
    """Whether anything must be adapted; else the user's bytes stay as they are."""
    for entry in entries:
        tensors = model.subgraphs[entry.subgraph].tensors
        int32 = all(_dtype(tensors[index]) == np.int32 for index in entry.inputs.values())
        float32 = _dtype(tensors[entry.outputs[output]]) == np.float32
        if not (entry.key and int32 and float32 and len(entry.outputs) == 1):
            return True
    return probabilities


def _adapt(model: Any, entry: _Entry, output: str, probabilities: bool, floor: float) -> None:
    """Operators at the border: casts of int32 ids in front, dequantization and a logarithm behind."""
    from ai_edge_litert import schema_py_generated as schema

    op, graph = schema.BuiltinOperator, model.subgraphs[entry.subgraph]
    for name, index in entry.inputs.items():
        if _dtype(graph.tensors[index]) != np.int32:
            entry.inputs[name] = ours = _tensor(graph, index, schema.TensorType.INT32, f"{name}_int32")
            graph.inputs = [ours if int(i) == index else int(i) for i in graph.inputs]
            graph.operators.insert(0, _operator(model, op.CAST, [ours], [index]))
    last = entry.outputs[output]

    def append(code: int, inputs: list[int], name: str, version: int = 1) -> int:
        made = _tensor(graph, last, schema.TensorType.FLOAT32, name)
        graph.operators.append(_operator(model, code, inputs, [made], version))
        return made

    if _dtype(graph.tensors[last]) != np.float32:
        version = {np.uint8: 1, np.int8: 2, np.int16: 3}[_dtype(graph.tensors[last])]
        last = append(op.DEQUANTIZE, [last], "adopted_float", version)
    if probabilities:
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = np.frombuffer(np.float32(floor).tobytes(), np.uint8)
        bound = _tensor(graph, last, schema.TensorType.FLOAT32, "adopted_floor")
        graph.tensors[bound].shape, graph.tensors[bound].shapeSignature = [1], None
        graph.tensors[bound].buffer = len(model.buffers) - 1
        last = append(op.MAXIMUM, [last, bound], "adopted_floored")
        last = append(op.LOG, [last], "adopted_logits")
    graph.outputs = [last]
    entry.outputs = {"logits": last}
    entry.key = entry.key or "serve"


def _tensor(graph: Any, like: int, kind: int, name: str) -> int:
    from ai_edge_litert.schema_py_generated import TensorT

    made, model = TensorT(), graph.tensors[like]
    made.shape, made.type, made.name, made.buffer = model.shape, kind, name.encode(), 0
    made.shapeSignature, made.hasRank = getattr(model, "shapeSignature", None), model.hasRank
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def _operator(model: Any, code: int, inputs: list[int], outputs: list[int], version: int = 1) -> Any:
    from ai_edge_litert.schema_py_generated import OperatorCodeT, OperatorT

    kind = OperatorCodeT()
    kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), version
    model.operatorCodes.append(kind)
    made = OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = len(model.operatorCodes) - 1, inputs, outputs
    return made


def _keep_signatures(model: Any, entries: list[_Entry]) -> None:
    from ai_edge_litert.schema_py_generated import SignatureDefT, TensorMapT

    def mapped(names: dict[str, int]) -> list[Any]:
        made = []
        for name, index in names.items():
            one = TensorMapT()
            one.name, one.tensorIndex = name.encode(), index
            made.append(one)
        return made

    model.signatureDefs = []
    for entry in entries:
        one = SignatureDefT()
        one.signatureKey, one.subgraphIndex = str(entry.key).encode(), entry.subgraph
        one.inputs, one.outputs = mapped(entry.inputs), mapped(entry.outputs)
        model.signatureDefs.append(one)


def _packed(model: Any) -> bytes:
    from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray

    return bytes(convert_object_to_bytearray(model))


def _ours(target: str, details: dict[str, Any], asked: list[dict[str, np.ndarray]]) -> np.ndarray:
    from runtimes.engines import litert as engine

    try:
        session = engine.open(Path(target), 1, {"file": "it", **details})
        return np.concatenate([session.run(feeds)["logits"] for feeds in asked])
    except EngineError as error:
        raise InputError(str(error)) from None


def _precision(model: Any) -> str:
    """From the types of weights and of what flows between operators."""
    from ai_edge_litert.schema_py_generated import TensorType as T

    weights: set[int] = set()
    flowing: set[int] = set()
    for graph in model.subgraphs:
        made = {int(i) for operator in graph.operators or [] for i in operator.outputs}
        for index, tensor in enumerate(graph.tensors):
            constant = model.buffers[tensor.buffer].data is not None
            if constant or index in made:
                (weights if constant else flowing).add(tensor.type)
    if T.INT4 in weights:
        return "int4"
    if T.INT8 in flowing or T.UINT8 in flowing:
        return "static_wi8_ai8"
    if T.INT8 in weights:
        return "dynamic_wi8_afp32"
    return "fp16" if T.FLOAT16 in weights else "fp32"
