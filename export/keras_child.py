"""TensorFlow's side of `export.keras`: open, answer, convert. Everything here runs in one child process."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export import adopt
from export.variant import about
from runtimes.errors import EngineError, InputError
from runtimes.text import Tokenizer, pad

MAX_CALIBRATION = 200
MAX_CONSTANTS = 1 << 30
STRING_LINE = "it takes raw strings ({}); bring the part behind it, and its vocabulary as a tokenizer.json"
SAVED = ("input_ids", "attention_mask", "length", "logits")
_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
_FILES = ("ReadFile", "WriteFile", "MatchingFiles", "ImmutableConst", "WholeFileReaderV2", "TextLineDataset")


@dataclass
class _Opened:
    """`call` takes our inputs by name as tensors; `inputs` is theirs → dtype name, `names` theirs → ours."""

    call: Callable[[dict[str, Any]], Any]
    keep: Any
    variables: Any
    names: dict[str, str]
    dtypes: dict[str, str]
    batch: int | None
    length: int | None


def convert_in_child(
    source: str,
    folder: str,
    names: list[str],
    labels: int,
    max_tokens: int | None,
    largest_id: int,
    fallback: int,
) -> dict[str, Any]:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    place = Path(folder)
    opened = _open_saved(Path(source), labels) if Path(source).is_dir() else _open_keras(Path(source))
    ask = _asker(opened)
    masked = "attention_mask" in opened.names.values()
    most = adopt.most_tokens(ask, opened.batch, opened.length, max_tokens, fallback)
    lengths = adopt.plan_lengths(1, opened.length, masked, most) or [most]
    asked, answers = adopt.probe(ask, labels, largest_id, lengths, most)
    if masked and adopt.by_position(opened.names):
        adopt.require_mask(ask, asked[-1])
    probabilities = adopt.are_probabilities(answers)
    lengths = _few_enough(opened, lengths)
    module = _module(opened, lengths, probabilities)
    adopt.require_same(answers, _ask_again(module, lengths, asked), probabilities)
    given = json.loads((place / "asked.json").read_bytes())
    tokenizer = Tokenizer.from_bytes((place / "tokenizer.json").read_bytes(), most)
    _save_answers(module, tokenizer, given["texts"], lengths, place / "answers.npz")
    saved = place / "wrapped"
    tf.saved_model.save(module, str(saved), signatures=module.concrete)
    questions = _feeds(tokenizer, given["calibration"], lengths)
    ours = [opened.names[name] for name in opened.names]
    for name in names:
        made = _convert(str(saved), name, lengths, questions, ours)
        (place / name / about(name)[3]).write_bytes(made)
    details = {
        "lengths": lengths,
        "signatures": {str(length): f"tokens_{length}" for length in lengths},
        "inputs": {one: one for one in ours},
        "output": "logits",
    }
    seen = {"inputs": opened.names, "probabilities": probabilities}
    return {"details": details, "max_tokens": most, **seen}


def _open_keras(source: Path) -> _Opened:
    import keras

    try:
        model = keras.saving.load_model(source, compile=False, safe_mode=True)
        specs = {tensor.name: (tensor.shape, tensor.dtype) for tensor in model.inputs}
    except Exception as error:  # whatever a config of another version meets
        raise InputError(f"keras cannot open it ({_line(error)}); save it with Keras 3") from None
    if len(model.outputs) != 1:
        raise InputError(f"{len(model.outputs)} outputs; make a model with the one that holds the logits")

    def call(inputs: dict[str, Any]) -> Any:
        values = list(inputs.values())
        return model(values[0] if len(values) == 1 else values, training=False)

    return _described(call, model, model.variables, specs)


def _open_saved(source: Path, labels: int) -> _Opened:
    import tensorflow as tf

    _check_graph(source)
    try:
        loaded = tf.saved_model.load(str(source))
        signatures = dict(loaded.signatures)
    except Exception as error:  # whatever a damaged folder meets
        told = re.search(r"Op type not registered '(\w+)'", str(error))
        if told:
            raise InputError(f"it needs the custom operator {told.group(1)}, which is not here") from None
        raise InputError(f"TensorFlow cannot open it ({_line(error)}); save it again") from None
    key = next((k for k in ("serving_default", "serve", *signatures) if k in signatures), None)
    if key is None:
        raise InputError("no signature in it; save it with model.export('saved/')")
    function = signatures[key]
    given = function.structured_input_signature[1]  # in no order; names that count up tell it
    specs = {name: (given[name].shape, given[name].dtype.name) for name in sorted(given, key=adopt.natural)}
    outputs = function.structured_outputs
    fits = [n for n, spec in outputs.items() if spec.shape.rank == 2 and spec.shape[1] in (None, labels)]
    output = "logits" if "logits" in outputs else (fits[0] if len(fits) == 1 else None)
    if output is None:
        told_outputs = ", ".join(f"{n} {tuple(s.shape)}" for n, s in outputs.items())
        raise InputError(f"outputs {told_outputs}; one of (batch, {labels}) is needed, for {labels} labels")

    def call(inputs: dict[str, Any]) -> Any:
        return function(**inputs)[output]

    return _described(call, loaded, function.variables, specs)


def _check_graph(source: Path) -> None:
    """A SavedModel is a program: operators that call Python or touch files are refused unloaded."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    told = saved_model_pb2.SavedModel()
    try:
        told.ParseFromString((source / "saved_model.pb").read_bytes())
    except DecodeError:
        raise InputError("saved_model.pb is damaged; copy or save it again") from None
    for graph in (meta.graph_def for meta in told.meta_graphs):
        functions = [node for function in graph.library.function for node in function.node_def]
        for node in (*graph.node, *functions):
            if node.op in _PYTHON:
                raise InputError(
                    "it calls Python (tf.py_function), which no device has; use TensorFlow's ops"
                )
            if node.op in _FILES:
                raise InputError(f"it touches files ({node.op}); save it without")


def _described(call: Callable[..., Any], keep: Any, variables: Any, specs: dict[str, Any]) -> _Opened:
    batches, lengths = set(), set()
    for name, (shape, dtype) in specs.items():
        if dtype == "string":
            raise InputError(STRING_LINE.format(f"input {name!r}"))
        if dtype not in ("int32", "int64", "float32") or shape is None or len(shape) != 2:
            raise InputError(f"input {name!r} is not token ids: int32 of shape (batch, length) is needed")
        batches.add(shape[0])
        lengths.add(shape[1])
    if not specs or len(lengths) != 1:
        raise InputError("its inputs have different lengths, or there are none; token ids are needed")
    batch, length = next(iter(batches)), next(iter(lengths))
    dtypes = {name: dtype for name, (_, dtype) in specs.items()}
    return _Opened(call, keep, variables, adopt.roles(list(specs)), dtypes, batch, length)


def _asker(opened: _Opened) -> adopt.Ask:
    import tensorflow as tf

    def ask(feeds: dict[str, np.ndarray]) -> np.ndarray:
        inputs = {n: tf.constant(feeds[ours].astype(opened.dtypes[n])) for n, ours in opened.names.items()}
        try:
            return np.asarray(opened.call(inputs))
        except Exception as error:  # tf.errors and those of keras
            raise EngineError(_line(error)) from None

    return ask


def _few_enough(opened: _Opened, lengths: list[int]) -> list[int]:
    """Weights are constants once for each length until the converter has shared them: 2 GB hold so many."""
    size = sum(int(np.asarray(variable).nbytes) for variable in opened.variables)
    return lengths[-max(1, MAX_CONSTANTS // max(size, 1)) :]


def _module(opened: _Opened, lengths: list[int], probabilities: bool) -> Any:
    """A tf.Module with one function a length: our int32 inputs (1, length) in, logits out."""
    import tensorflow as tf

    def answer(*values: Any) -> Any:
        inputs = {n: tf.cast(v, opened.dtypes[n]) for n, v in zip(opened.names, values, strict=True)}
        return tf.cast(opened.call(inputs), tf.float32)

    module = tf.Module()
    module.functions, module.concrete = [], {}
    for length in lengths:
        specs = [tf.TensorSpec((1, length), tf.int32, name=ours) for ours in opened.names.values()]
        function = tf.function(answer, input_signature=specs).get_concrete_function()
        module.functions.append(tf.function(_logits(function, probabilities), input_signature=specs))
        module.concrete[f"tokens_{length}"] = module.functions[-1].get_concrete_function()
    return module


def _logits(function: Any, probabilities: bool) -> Callable[..., Any]:
    """Weights as constants, since the converter's calibration does not find variables; and no last softmax.

    Logits quantize better than probabilities. What is no softmax becomes its logarithm.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    constant = convert_variables_to_constants_v2(function, lower_control_flow=False)
    last = constant.outputs[0].op
    while last.type in ("Identity", "Cast"):
        last = last.inputs[0].op
    cut = constant.prune(constant.inputs, [last.inputs[0]]) if last.type == "Softmax" else None

    def logits(*values: Any) -> dict[str, Any]:
        if not probabilities:
            return {"logits": constant(*values)[0]}
        if cut is not None:
            return {"logits": cut(*values)[0]}
        return {"logits": tf.math.log(tf.maximum(constant(*values)[0], adopt.FLOOR))}

    return logits


def _feeds(tokenizer: Tokenizer, texts: Sequence[str], lengths: list[int]) -> list[dict[str, np.ndarray]]:
    """One question of batch 1 for each text that has tokens, at the smallest length that fits."""
    found = []
    for ids in (tokenizer.encode([text])[0] for text in texts):
        if len(ids) > tokenizer.special_tokens:
            length = next((n for n in lengths if n >= len(ids)), lengths[-1])
            found.append(pad([ids[:length]], length, tokenizer.pad_id))
    return found


def _ask_again(module: Any, lengths: list[int], asked: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """Logits float32 (n, labels) of questions that are as long as one of the lengths, or are padded to it."""
    import tensorflow as tf

    functions, answers = dict(zip(lengths, module.functions, strict=True)), []
    for feeds in asked:
        length = next(n for n in lengths if n >= feeds["input_ids"].shape[1])
        more = ((0, 0), (0, length - feeds["input_ids"].shape[1]))
        specs = functions[length].input_signature
        values = [tf.constant(np.pad(feeds[spec.name], more), tf.int32) for spec in specs]
        answers.append(functions[length](*values)["logits"].numpy()[0])
    return np.array(answers)


def _save_answers(
    module: Any, tokenizer: Tokenizer, texts: Sequence[str], lengths: list[int], target: Path
) -> None:
    asked = _feeds(tokenizer, texts, lengths)
    saved: dict[str, Any] = {"logits": _ask_again(module, lengths, asked)}
    saved["length"] = np.array([feeds["input_ids"].shape[1] for feeds in asked])
    for name in ("input_ids", "attention_mask"):
        rows = [np.pad(feeds[name][0], (0, lengths[-1] - feeds[name].shape[1])) for feeds in asked]
        saved[name] = np.array(rows)
    np.savez(target, **saved)


def _convert(
    saved: str, name: str, lengths: list[int], questions: list[dict[str, np.ndarray]], ours: list[str]
) -> bytes:
    """TensorFlow's converter, with built-in operators only. Source: its post-training quantization guide."""
    import tensorflow as tf

    keys = [f"tokens_{length}" for length in lengths]
    converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=keys)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if name != "tflite-fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == "tflite-static_wi8_ai8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]

        def samples() -> Iterator[Any]:
            for feeds in questions[:MAX_CALIBRATION]:
                key = f"tokens_{feeds['input_ids'].shape[1]}"
                yield key, {one: feeds[one].astype(np.int32) for one in ours}

        converter.representative_dataset = samples
    try:
        return converter.convert()
    except Exception as error:  # the converter's own, ValueError, RuntimeError
        raise InputError(f"does not become {name}: {_why_not(str(error))}") from None


def _why_not(told: str) -> str:
    """What the converter misses, out of a page of text."""
    for kind in ("TF Select ops", "Custom ops"):
        found = re.search(rf"{kind}: ([\w, ]+)", told)
        if found:
            return f"TFLite has no built-in operator for {found.group(1).strip()}; use others"
    found = re.search(r"(?:Quantization to [^\n]*not supported|not supported[^\n]*op[^\n]*)[^\n]*", told)
    return (found.group() if found else _line(Exception(told)))[:200]


def _line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).strip()[:160]
