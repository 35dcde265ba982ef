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
STRING_LINE = "it takes raw strings ({}); bring the part behind it, and its vocabulary as a tokenizer.json"
SAVED = ("input_ids", "attention_mask", "length", "logits")
_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
_FILES = ("ReadFile", "WriteFile", "MatchingFiles", "ImmutableConst", "WholeFileReaderV2", "TextLineDataset")


@dataclass
class _Opened:
    """`call` takes our inputs by name as tensors; `inputs` is theirs → dtype name, `names` theirs → ours."""

    call: Callable[[dict[str, Any]], Any]
    keep: Any
    names: dict[str, str]
    dtypes: dict[str, str]
    batch: int | None
    length: int | None
    cut: bool


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
    module = _module(opened, lengths, probabilities)
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
    seen = {"inputs": opened.names, "probabilities": probabilities or opened.cut}
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
    model, cut = _without_softmax(model)

    def call(inputs: dict[str, Any]) -> Any:
        values = list(inputs.values())
        return model(values[0] if len(values) == 1 else values, training=False)

    return _described(call, model, specs, cut)


def _without_softmax(model: Any) -> tuple[Any, bool]:
    """Logits quantize better than probabilities: a last softmax is left out, and done by the task anyway."""
    import keras

    last = model.outputs[0]._keras_history.operation
    if isinstance(last, keras.layers.Softmax):
        return keras.Model(model.inputs, last.input), True
    if getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
        return model, True
    return model, False


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

    return _described(call, loaded, specs, False)


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


def _described(call: Callable[..., Any], keep: Any, specs: dict[str, Any], cut: bool) -> _Opened:
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
    return _Opened(call, keep, adopt.roles(list(specs)), dtypes, batch, length, cut)


def _asker(opened: _Opened) -> adopt.Ask:
    import tensorflow as tf

    def ask(feeds: dict[str, np.ndarray]) -> np.ndarray:
        inputs = {n: tf.constant(feeds[ours].astype(opened.dtypes[n])) for n, ours in opened.names.items()}
        try:
            return np.asarray(opened.call(inputs))
        except Exception as error:  # tf.errors and those of keras
            raise EngineError(_line(error)) from None

    return ask


def _module(opened: _Opened, lengths: list[int], probabilities: bool) -> Any:
    """A tf.Module with one function a length: our int32 inputs (1, length) in, logits out."""
    import tensorflow as tf

    def logits(*values: Any) -> dict[str, Any]:
        inputs = {n: tf.cast(v, opened.dtypes[n]) for n, v in zip(opened.names, values, strict=True)}
        answer = tf.cast(opened.call(inputs), tf.float32)
        return {"logits": tf.math.log(tf.maximum(answer, adopt.FLOOR)) if probabilities else answer}

    module = tf.Module()
    module.keep, module.functions, module.concrete = opened.keep, [], {}
    for length in lengths:
        specs = [tf.TensorSpec((1, length), tf.int32, name=ours) for ours in opened.names.values()]
        module.functions.append(_frozen(tf.function(logits, input_signature=specs), specs))
        module.concrete[f"tokens_{length}"] = module.functions[-1].get_concrete_function()
    return module


def _frozen(function: Any, specs: list[Any]) -> Any:
    """Weights as constants: the converter's calibration does not find variables."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    constant = convert_variables_to_constants_v2(function.get_concrete_function(), lower_control_flow=False)

    def logits(*values: Any) -> dict[str, Any]:
        (answer,) = constant(*values)
        return {"logits": answer}

    return tf.function(logits, input_signature=specs)


def _feeds(tokenizer: Tokenizer, texts: Sequence[str], lengths: list[int]) -> list[dict[str, np.ndarray]]:
    """One question of batch 1 for each text that has tokens, at the smallest length that fits."""
    found = []
    for ids in (tokenizer.encode([text])[0] for text in texts):
        if len(ids) > tokenizer.special_tokens:
            length = next((n for n in lengths if n >= len(ids)), lengths[-1])
            found.append(pad([ids[:length]], length, tokenizer.pad_id))
    return found


def _save_answers(
    module: Any, tokenizer: Tokenizer, texts: Sequence[str], lengths: list[int], target: Path
) -> None:
    import tensorflow as tf

    functions = dict(zip(lengths, module.functions, strict=True))
    asked = _feeds(tokenizer, texts, lengths)
    saved: dict[str, list[Any]] = {name: [] for name in SAVED}
    for feeds in asked:
        length = feeds["input_ids"].shape[1]
        names = functions[length].input_signature
        values = [tf.constant(feeds[spec.name], tf.int32) for spec in names]
        saved["logits"].append(functions[length](*values)["logits"].numpy()[0])
        saved["length"].append(length)
        for name in ("input_ids", "attention_mask"):
            saved[name].append(np.pad(feeds[name][0], (0, lengths[-1] - length)))
    arrays: dict[str, Any] = {name: np.array(rows) for name, rows in saved.items()}
    np.savez(target, **arrays)


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
