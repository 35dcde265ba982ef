"""What runs a variant. Each engine is a module with `open(source, threads, ...) -> Session`."""

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


def installed(engine: str) -> bool:
    """Whether a package that brings this engine can be imported."""
    return any(find_spec(package) is not None for package in PACKAGES[engine])


def module(engine: str) -> Any:
    """The engine's module. Raises EngineError where it is unknown or neither installed here nor elsewhere."""
    if engine not in PACKAGES:
        raise EngineError(f"engine {engine!r} is not known; choose one of {', '.join(PACKAGES)}")
    if not installed(engine) and interpreter(engine) is None:
        raise EngineError(f"engine {engine!r} is not installed; {INSTALL[engine]}")
    return import_module(f"runtimes.engines.{engine}")
