"""LiteRT (TensorFlow Lite): `ai_edge_litert`, else `tflite_runtime`, else `tensorflow.lite`."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.engines import INSTALL, PACKAGES
from runtimes.errors import EngineError

_INTERPRETERS = {
    "ai_edge_litert": "ai_edge_litert.interpreter",
    "tflite_runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow.lite.python.interpreter",  # `tensorflow.lite` alone has none
}
# Of these tflite-runtime 2.14 reads one scale where the weights have one a channel: wrong answers, no error.
_ONE_SCALE = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")
_DISTRIBUTIONS = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}


class LiteRTSession:
    """A .tflite with one signature per input length (batch 1), sharing their weights.

    Token ids go in as int32, numbers as float32, or as int8 where the graph is all-integer.
    """

    def __init__(self, interpreter: Any, package: str, threads: int, variant: dict[str, Any]) -> None:
        self._interpreter = interpreter
        self._package = package
        self._threads = threads
        self._inputs: dict[str, str] = dict(variant["inputs"])
        self._output: str = variant["output"]
        runners = {
            int(length): interpreter.get_signature_runner(key)
            for length, key in variant["signatures"].items()
        }
        self._runners = dict(sorted(runners.items()))
        if not self._inputs:
            raise ValueError("no inputs")
        self._first = next(iter(self._inputs.values()))
        self._borders = {length: runner.get_input_details() for length, runner in self._runners.items()}
        self.lengths: list[int] | None = list(self._runners)
        if not self.lengths or self.lengths[0] < 1:
            raise ValueError("no signature")

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            count, length = feeds[self._first].shape
            runner, border = self._runners[length], self._borders[length]
            inputs = {name: _bordered(feeds[ours], border[name]) for name, ours in self._inputs.items()}
            return {self._output: np.concatenate([_row(runner, inputs, row) for row in range(count)])}
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise EngineError(f"LiteRT cannot run the graph: {_first_line(error)}") from None

    def describe(self) -> dict[str, Any]:
        return {
            "engine": self._package,
            "engine_version": _version(self._package),
            "threads": self._threads,
            "providers": ["XNNPACK"] if _delegated(self._interpreter) else [],
        }


def open(
    source: Path | bytes,
    threads: int,
    variant: dict[str, Any],
    providers: Sequence[str] = ("XNNPACK",),
    allow_fallback: bool = False,
) -> LiteRTSession:
    """Open a .tflite. Raises EngineError where it cannot be opened or no delegate took the graph over.

    Also where tflite-runtime, LiteRT's predecessor, would compute something else (`_misread`).
    """
    package, interpreter_class = _interpreter_class()
    model = {"model_content": source} if isinstance(source, bytes) else {"model_path": str(source)}
    try:
        interpreter = interpreter_class(**model, num_threads=threads)
        interpreter.allocate_tensors()
        session = LiteRTSession(interpreter, package, threads, variant)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"LiteRT cannot open {variant['file']}: {_first_line(error)}") from None
    if package == "tflite_runtime" and _misread(interpreter):
        raise EngineError(
            f"tflite-runtime misreads {variant['file']}, whose weights have a scale a channel; "
            "take an fp32 variant or install ai-edge-litert"
        )
    unknown = [provider for provider in providers if provider != "XNNPACK"]
    if unknown and not allow_fallback:
        raise EngineError(f"LiteRT has no {', '.join(unknown)} here, only XNNPACK; allow the fallback")
    plain = package == "tflite_runtime" and sys.maxsize < 2**32  # its 32-bit builds hold no XNNPACK
    if not _delegated(interpreter) and not allow_fallback and not plain:
        raise EngineError(
            f"LiteRT runs {variant['file']} without XNNPACK, slowly; allow the fallback to go on"
        )
    return session


def _row(runner: Any, inputs: dict[str, np.ndarray], row: int) -> np.ndarray:
    answer: np.ndarray
    ((name, answer),) = runner(**{key: values[row : row + 1] for key, values in inputs.items()}).items()
    if answer.dtype == np.float32:
        return answer
    # An all-integer graph: what it answers means (answer - zero point) * scale.
    scale, zero_point = runner.get_output_details()[name]["quantization"]
    return (answer.astype(np.float32) - zero_point) * np.float32(scale)


def _bordered(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """An input as the graph takes it: what is beyond the range of an int8 border goes to its end."""
    if values.dtype.kind != "f":
        return values.astype(np.int32)
    if detail["dtype"] is not np.int8:
        return values.astype(np.float32, copy=False)
    scale, zero_point = detail["quantization"]
    return np.clip(np.rint(values / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)


def _interpreter_class() -> tuple[str, Any]:
    for package in PACKAGES["litert"]:
        with suppress(ImportError):
            if package == "tensorflow":  # it brings a SQLite without full-text search; the first one stays
                import sqlite3  # noqa: F401
            return package, import_module(_INTERPRETERS[package]).Interpreter
    raise EngineError(f"engine 'litert' cannot be imported; {INSTALL['litert']}")


def _delegated(interpreter: Any) -> bool:
    """Whether a delegate node stands in the plan: what was asked for is not always what runs."""
    return any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())


def _misread(interpreter: Any) -> bool:
    """Whether weights with several scales go into an operator that takes the first one for all."""
    details = interpreter.get_tensor_details()
    several = {one["index"] for one in details if len(one["quantization_parameters"]["scales"]) > 1}
    operators = interpreter._get_ops_details()
    return any(op["op_name"] in _ONE_SCALE and several.intersection(op["inputs"]) for op in operators)


def _version(package: str) -> str:
    try:
        return version(_DISTRIBUTIONS.get(package, package))
    except PackageNotFoundError:  # a copied folder has no metadata
        return "unknown"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
