"""Two graphs of one format on the same inputs, tensor by tensor; through `in_child`: interpreters crash."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Operators that carry weights or sum up; what lies between them (powers, roots) only magnifies an error.
_ONNX_TAPS = {"MatMul", "Gemm", "Gather", "Add", "Reshape"}
_TFLITE_TAPS = {
    "FULLY_CONNECTED",
    "EMBEDDING_LOOKUP",
    "GATHER",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "BATCH_MATMUL",
}
_Feeds = dict[str, np.ndarray]
_Run = Callable[[_Feeds], dict[str, np.ndarray]]


def errors_by_tensor(want: str, got: str, inputs_at: str, details: dict[str, Any]) -> list[dict[str, Any]]:
    """`want` and `got`: files of the fp32 and the quantized graph. `inputs_at`: .npz with `input_ids` and
    `attention_mask`, int64 (n, L), padding on the right, or `values`,
    float32 (n, window). Returns name, state and error, in graph order."""
    compare = _onnx if details["engine"] == "onnx" else _tflite
    with np.load(inputs_at, allow_pickle=False) as arrays:
        if "values" in arrays.files:
            return compare(Path(want), Path(got), list(arrays["values"][:, None]), details)
        ids, mask = arrays["input_ids"], arrays["attention_mask"]
    lengths = mask.sum(axis=1).tolist()
    rows = [ids[row : row + 1, :length] for row, length in enumerate(lengths)]
    return compare(Path(want), Path(got), rows, details)


class _Sums:
    """Squared norms of differences and of the wanted tensors, by tensor."""

    def __init__(self) -> None:
        self.off: defaultdict[str, float] = defaultdict(float)
        self.all: defaultdict[str, float] = defaultdict(float)

    def add(self, key: str, want: np.ndarray, got: np.ndarray, padded: int, length: int) -> None:
        """Compare what belongs to the `length` real tokens of `padded`."""
        if want.shape != got.shape or want.dtype.kind != "f":
            return
        for axis in (axis for axis, size in enumerate(want.shape[:-1]) if size == padded):
            real = np.arange(length)
            want, got = want.take(real, axis), got.take(real, axis)
        difference = got.astype(np.float64) - want
        self.off[key] += float((difference**2).sum()) if np.isfinite(got).all() else float("inf")
        self.all[key] += float((want.astype(np.float64) ** 2).sum())

    def rows(self, order: dict[str, tuple[str, bool]]) -> list[dict[str, Any]]:
        """In the order of `order`: key → (name to show, whether it is a hidden state)."""
        return [
            {"name": name, "state": state, "error": min((self.off[key] / self.all[key]) ** 0.5, 1e9)}
            for key, (name, state) in order.items()
            if self.all[key] > 0
        ]


def _onnx(want: Path, got: Path, rows: list[np.ndarray], details: dict[str, Any]) -> list[dict[str, Any]]:
    import onnx

    graphs = [onnx.load(str(path)) for path in (want, got)]
    made = {out for node in graphs[1].graph.node for out in node.output}
    last = graphs[0].graph.output[0].name
    order = {
        node.output[0]: (node.output[0], node.op_type == "LayerNormalization")
        for node in graphs[0].graph.node
        if node.op_type in {*_ONNX_TAPS, "LayerNormalization"} and node.output[0] in made
    }
    order[last] = (last, True)
    runs = [_onnx_run(graph, list(order)) for graph in graphs]
    sums = _Sums()
    for ids in rows:
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        feeds["values"] = ids
        left, right = (run(feeds) for run in runs)
        for tap in order:
            sums.add(tap, left[tap], right[tap], ids.shape[1], ids.shape[1])
    return sums.rows(order)


def _onnx_run(graph: Any, taps: list[str]) -> _Run:
    import onnx

    from runtimes.engines.onnx import open as open_onnx

    there = {output.name for output in graph.graph.output}
    graph.graph.output.extend(onnx.ValueInfoProto(name=tap) for tap in taps if tap not in there)
    return open_onnx(graph.SerializeToString(), 1, {"file": "the graph to diagnose"}).run


def _tflite(want: Path, got: Path, rows: list[np.ndarray], details: dict[str, Any]) -> list[dict[str, Any]]:
    """All on one signature, the shortest that holds half of the inputs; longer ones are left out.

    A quantized file names no inner tensors, so operators are matched by their order.
    """
    signatures = {int(length): key for length, key in details["signatures"].items()}
    usual = float(np.median([ids.shape[1] for ids in rows]))
    length = min((one for one in signatures if one >= usual), default=max(signatures))
    left, right = (_TFLite(path, signatures[length]) for path in (want, got))
    if [one.code for one in left.operators] != [one.code for one in right.operators]:
        raise ValueError("the graphs differ in their operators")
    taps = _tflite_taps(left.operators)
    sums = _Sums()
    for ids in (ids for ids in rows if ids.shape[1] <= length):
        count = ids.shape[1]
        padded = np.zeros((1, length), ids.dtype if ids.dtype.kind == "f" else np.int32)
        padded[:, :count] = ids
        mask = (np.arange(length)[None] < count).astype(np.int32)
        feeds = {"input_ids": padded, "attention_mask": mask, "values": padded}
        named = {arg: feeds[ours] for arg, ours in details["inputs"].items()}
        left.run(named)
        right.run(named)
        for place in taps:
            sums.add(str(place), left.output(place), right.output(place), length, count)
    return sums.rows({str(place): tap for place, tap in taps.items()})


@dataclass(frozen=True)
class _Operator:
    """`module`: what the output is named for; `weight`: what the weights are named for, if there are any."""

    code: str
    output: int
    module: str
    weight: str | None


def _tflite_taps(operators: list[_Operator]) -> dict[int, tuple[str, bool]]:
    """Place → (name to show, whether it is a hidden state), in graph order.

    A normalisation is many operators: the output of the last one is the state.
    """
    taps = {}
    modules = [*(one.module for one in operators), ""]
    for place, one in enumerate(operators):
        normed = "LayerNorm" in one.module and one.module != modules[place + 1]
        if normed or place + 1 == len(operators):
            taps[place] = (one.module if normed else one.weight or one.module, True)
        elif one.code in _TFLITE_TAPS:
            taps[place] = (one.weight or one.module, False)
    return taps


class _TFLite:
    """A signature whose every tensor can be read after a run: no delegate, built-in kernels, one thread."""

    def __init__(self, path: Path, signature: str) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._interpreter = Interpreter(
            model_path=str(path),
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._interpreter.allocate_tensors()
        self._runner = self._interpreter.get_signature_runner(signature)
        self._model = schema.Model.GetRootAs(path.read_bytes(), 0)
        self._codes = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
        definitions = [self._model.SignatureDefs(i) for i in range(self._model.SignatureDefsLength())]
        self._index = next(d.SubgraphIndex() for d in definitions if d.SignatureKey().decode() == signature)
        self._graph = self._model.Subgraphs(self._index)
        found = [self._operator(self._graph.Operators(i)) for i in range(self._graph.OperatorsLength())]
        self.operators = [one for one in found if one.code not in ("QUANTIZE", "DEQUANTIZE")]

    def run(self, feeds: _Feeds) -> None:
        self._runner(**feeds)
        details = self._interpreter.get_tensor_details(subgraph_index=self._index)
        self._details = {one["index"]: one for one in details}

    def output(self, place: int) -> np.ndarray:
        """An operator's output as float32; one that stays int8 between operators is dequantized."""
        detail = self._details[self.operators[place].output]
        value = self._interpreter.get_tensor(detail["index"], self._index)
        scale, zero = detail["quantization"]
        if value.dtype.kind == "i" and scale:
            return ((value.astype(np.float32) - zero) * scale).astype(np.float32)
        return np.asarray(value)

    def _operator(self, op: Any) -> _Operator:
        code = self._model.OperatorCodes(op.OpcodeIndex())
        name = self._codes.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "")
        return _Operator(name, op.Outputs(0), _module(self._name(op.Outputs(0))), self._weight(op))

    def _name(self, tensor: int) -> str:
        return str((self._graph.Tensors(tensor).Name() or b"").decode(errors="replace"))

    def _weight(self, op: Any) -> str | None:
        """The module of the operator's weights: its output is often named for a wider one."""
        for tensor in (op.Inputs(i) for i in range(1, op.InputsLength())):
            buffer = self._graph.Tensors(tensor).Buffer() if tensor >= 0 else 0
            if self._model.Buffers(buffer).DataLength() > 64:
                module = _module(self._name(tensor))
                return module if "/" in module else None
        return None


def _module(name: str) -> str:
    """The path of the last of the modules that a tensor is named for: "a/b;3", "a/b;a/c;1"."""
    return [part for part in name.split(";") if part and not part.isdigit()][-1] if name.strip(";") else name
