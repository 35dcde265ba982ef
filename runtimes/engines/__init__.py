"""What runs a variant. Each engine is a module with `open(source, threads, ...) -> Session`."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from runtimes.engines.elsewhere import interpreter
from runtimes.errors import EngineError

# Engine → packages that bring it, in order of preference.
PACKAGES = {
    "onnx": ("onnxruntime",),
    "litert": ("ai_edge_litert", "tflite_runtime", "tensorflow"),
    "executorch": ("executorch",),
    "torch": ("torch",),
}
DECODES = ("onnx", "torch")
INSTALL = {
    "onnx": "pip install 'edgewise[onnx]'",
    "litert": "pip install 'edgewise[litert]'",
    "executorch": "make executorch, or pip install 'edgewise[executorch]' in an environment of its own",
    "torch": "pip install 'edgewise[train]'",
}


class Session(Protocol):
    """An opened variant. `lengths` are the input lengths it takes (ascending), None where any will do."""

    lengths: list[int] | None

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Named inputs of shape (batch, length), int64 or (numbers) float32 → named float32 outputs."""

    def describe(self) -> dict[str, Any]:
        """engine, engine_version, threads, providers (or delegates) really used."""


class Cache(Protocol):
    """Keys and values of the tokens that a decoder has read, in one or more rows."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 (rows,): how many tokens each row holds."""

    def forward(self, ids: np.ndarray, every: bool = False) -> np.ndarray:
        """Read int64 (rows, n) and give float32 logits (rows, vocabulary) of the last position, or of `every`
        one (rows, n, vocabulary). Several tokens at once are for a single row. What comes is good until the
        next call."""

    def rewind(self, length: int) -> None:
        """Forget all tokens behind the first `length` of a single row."""

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these, in this order."""


class Decoder(Protocol):
    """An opened variant that reads tokens one after the other."""

    def begin(self) -> Cache:
        """The empty cache of one text; several may be at work in turn."""

    def join(self, caches: Sequence[Any]) -> Cache:
        """One cache with a row for each of these, which hold a row each."""

    def describe(self) -> dict[str, Any]:
        """As `Session.describe`; and cache_bytes_per_token."""


def installed(engine: str) -> bool:
    """Whether a package that brings this engine can be imported."""
    return any(find_spec(package) is not None for package in PACKAGES[engine])


def module(engine: str, decodes: bool = False) -> Any:
    """The engine's module, or that of its decoders.

    Raises EngineError where it is unknown or neither installed here nor elsewhere, or has no decoder.
    """
    if engine not in PACKAGES:
        raise EngineError(f"engine {engine!r} is not known; choose one of {', '.join(PACKAGES)}")
    if not installed(engine) and interpreter(engine) is None:
        raise EngineError(f"engine {engine!r} is not installed; {INSTALL[engine]}")
    if not decodes:
        return import_module(f"runtimes.engines.{engine}")
    if engine not in DECODES:
        raise EngineError(f"engine {engine!r} does not decode texts here; {' and '.join(DECODES)} do")
    return import_module(f"runtimes.engines.{engine}_decoder")
