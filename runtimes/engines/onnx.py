"""ONNX Runtime."""

import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Its Linux wheels send telemetry by default since 1.29; the switch is read when the library is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from runtimes.errors import EngineError

# Field 1 (tag, length 8, "location") of a protobuf StringStringEntryProto: the key that every external tensor
# has. Tag and length may be padded to longer varints, which a parser takes as well.
_EXTERNAL = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


class OnnxSession:
    """An ONNX graph: with free batch and length, or (adopted ones) with fixed `lengths` at batch 1."""

    def __init__(
        self, session: onnxruntime.InferenceSession, threads: int, lengths: list[int] | None = None
    ) -> None:
        self.lengths = lengths
        self._session = session
        self._threads = threads
        self._inputs = [(node.name, _DTYPES[node.type]) for node in session.get_inputs()]
        self._outputs = [node.name for node in session.get_outputs()]

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            inputs = {name: feeds[name].astype(dtype, copy=False) for name, dtype in self._inputs}
            return dict(zip(self._outputs, self._session.run(None, inputs), strict=True))
        except Exception as error:  # onnxruntime raises classes of its own for each fault
            raise EngineError(f"onnxruntime cannot run the graph: {first_line(error)}") from None

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "onnxruntime",
            "engine_version": onnxruntime.__version__,
            "threads": self._threads,
            "providers": self._session.get_providers(),
        }


def open(
    source: Path | bytes,
    threads: int,
    variant: dict[str, Any],
    providers: Sequence[str] = ("CPUExecutionProvider",),
    allow_fallback: bool = False,
) -> OnnxSession:
    """Open a graph. Raises EngineError where it cannot be opened or a provider is not really used."""
    session = start(source, threads, variant["file"], providers, allow_fallback)
    try:
        return OnnxSession(session, threads, _lengths(variant))
    except Exception as error:
        raise EngineError(f"onnxruntime cannot open {variant['file']}: {first_line(error)}") from None


def start(
    source: Path | bytes, threads: int, file: str, providers: Sequence[str], allow_fallback: bool
) -> onnxruntime.InferenceSession:
    """onnxruntime's own session of a graph, which the bundle calls `file`. Raises EngineError as `open`."""
    _refuse_external_data(source, file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, in one line
    available = onnxruntime.get_available_providers()
    missing = [provider for provider in providers if provider not in available]
    if missing and not allow_fallback:
        raise EngineError(
            f"onnxruntime has no {', '.join(missing)} here (it has {', '.join(available)}); "
            "install the build that has it or allow the fallback"
        )
    wanted = [provider for provider in providers if provider in available] or ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source), options, providers=wanted
        )
        session._model_bytes = None  # it keeps the file's bytes for good, beside its own copy of the weights
    except Exception as error:  # onnxruntime raises classes of its own for each fault
        raise EngineError(f"onnxruntime cannot open {file}: {first_line(error)}") from None
    unused = [provider for provider in wanted if provider not in session.get_providers()]
    if unused and not allow_fallback:
        raise EngineError(f"onnxruntime fell back from {', '.join(unused)} to {session.get_providers()}")
    return session


def _lengths(variant: dict[str, Any]) -> list[int] | None:
    lengths = variant.get("lengths")
    if lengths is None:
        return None
    if not isinstance(lengths, list) or not lengths or not all(type(n) is int and n > 0 for n in lengths):
        raise ValueError("lengths must be positive integers")
    return sorted(lengths)


def _refuse_external_data(source: Path | bytes, name: str) -> None:
    """A graph may name weight files beside it (or anywhere): no digest of the bundle would cover those.

    Scanned for as bytes, since the onnx package does not go to the device.
    """
    if isinstance(source, bytes):
        found = _EXTERNAL.search(source)
    else:
        with source.open("rb") as stream:
            empty = not source.stat().st_size
            found = (
                None if empty else _EXTERNAL.search(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            )
    if found:
        raise EngineError(f"{name} keeps its weights in other files; save it with them inside")


def first_line(error: Exception) -> str:
    """What onnxruntime says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
