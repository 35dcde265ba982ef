"""What is installed, what is missing for which verb, and how to get it. Imports nothing heavy."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from runtimes.engines import INSTALL, PACKAGES, installed
from runtimes.engines.elsewhere import interpreter
from runtimes.errors import EngineError

# Distribution → what it is for.
_PACKAGES = {
    "numpy": "arrays, everywhere",
    "tokenizers": "tokenization, everywhere",
    "onnxruntime": "engine: ONNX Runtime",
    "ai-edge-litert": "engine: LiteRT",
    "tflite-runtime": "engine: TensorFlow Lite on old devices",
    "torch": "training, and the reference engine",
    "transformers": "training and export",
    "accelerate": "training",
    "datasets": "training data",
    "scikit-learn": "baselines",
    "onnx": "quantization, diagnosis",
    "optimum-onnx": "export to ONNX",
    "litert-torch": "export to TFLite",
    "ai-edge-quantizer": "quantization of TFLite",
    "nncf": "static quantization of ONNX",
    "optuna": "search under a budget",
    "tensorflow": "import of Keras models and SavedModels",
    "matplotlib": "plots",
    "psutil": "what the bench knows of the machine",
    "typer": "this command line",
    "fastapi": "the service",
    "uvicorn": "the service",
}
_TRAIN = ("torch", "transformers", "accelerate", "datasets", "scikit-learn", "matplotlib")
_EXPORT = (
    *_TRAIN,
    "onnx",
    "onnxruntime",
    "optimum-onnx",
    "litert-torch",
    "ai-edge-quantizer",
    "ai-edge-litert",
)
# Verb → packages it cannot do without, extra that brings them.
_VERBS: dict[str, tuple[tuple[str, ...], str]] = {
    "build": ((*_EXPORT, "psutil"), "all"),
    "train": (_TRAIN, "train"),
    "compress": ((*_TRAIN, "onnx", "ai-edge-quantizer", "nncf", "optuna"), "compress"),
    "export": (_EXPORT, "export"),
    "check": (_EXPORT, "export"),
    "run": (("numpy", "tokenizers"), "onnx"),
    "serve": (("fastapi", "uvicorn", "python-multipart", "websockets"), "apps"),
    "keys": ((), "apps"),
    "bench": (("psutil",), "bench"),
    "report": (("numpy",), "bench"),
    "doctor": ((), "apps"),
}
_NEEDS_ENGINE = ("run", "serve", "bench", "check")


def diagnose() -> dict[str, Any]:
    """{"machine": …, "packages": {name: version}, "verbs": {verb: ready, missing, install}}."""
    return {
        "machine": _machine(),
        "packages": {name: {"version": _version(name), "what": what} for name, what in _PACKAGES.items()},
        "verbs": {verb: _verb(verb) for verb in _VERBS},
    }


def _verb(verb: str) -> dict[str, Any]:
    packages, extra = _VERBS[verb]
    missing = [name for name in packages if _version(name) is None]
    install = f"pip install 'edgewise[{extra}]'"
    if verb in _NEEDS_ENGINE and not any(installed(engine) for engine in PACKAGES):
        missing.append("an engine")
        install += f" or, for an engine alone, {INSTALL['onnx']} or {INSTALL['litert']}"
    return {"ready": not missing, "missing": missing, "install": install if missing else None}


def _machine() -> dict[str, Any]:
    cache = Path(os.environ.get("EDGEWISE_CACHE") or "~/.cache/edgewise").expanduser()
    mirror = os.environ.get("EDGEWISE_MIRROR")
    near = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return {
        "edgewise": _version("edgewise"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}",
        "cache": f"{cache} ({shutil.disk_usage(near).free >> 30} GB free there)",
        "mirror": _mirror(mirror),
        "executorch": _executorch(),
        "chromium": shutil.which("chromium")
        or shutil.which("google-chrome")
        or "missing (browser tests only)",
    }


def _executorch() -> str:
    """Where its variants are exported, checked and run: here, in an environment of its own, or nowhere."""
    if installed("executorch"):
        return f"{_version('executorch')} here"
    try:
        python = interpreter("executorch")
    except EngineError as error:
        return str(error)
    if python is None:
        return "missing: make executorch (only for variants executorch-…)"
    found = sorted(python.parents[1].glob("lib/python*/site-packages/executorch-*.dist-info"))
    if not found:
        return f"no executorch in {python}; run make executorch"
    return f"{found[0].name.removeprefix('executorch-').removesuffix('.dist-info')} in {python}"


def _mirror(mirror: str | None) -> str:
    if not mirror:
        return "not set (EDGEWISE_MIRROR)"
    return mirror if Path(mirror).is_dir() else f"{mirror}: no such folder"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
