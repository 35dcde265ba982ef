"""The variant: one exported model file for one engine at one precision, named `<format>-<precision>`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Name → engine, precision, the variant it is quantized from, file name in the bundle.
KNOWN: dict[str, tuple[str, str, str | None, str]] = {
    "onnx-fp32": ("onnx", "fp32", None, "model.onnx"),
    "onnx-int8": ("onnx", "int8", "onnx-fp32", "model.onnx"),
    "tflite-fp32": ("litert", "fp32", None, "model.tflite"),
    "tflite-dynamic_wi8_afp32": ("litert", "dynamic_wi8_afp32", "tflite-fp32", "model.tflite"),
    "executorch-fp32": ("executorch", "fp32", None, "model.pte"),
    "executorch-int8": ("executorch", "int8", None, "model.pte"),
}
# What is made where nothing is named: the rest needs more than the common environment or calibration.
DEFAULT: tuple[str, ...] = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic_wi8_afp32")


@dataclass(frozen=True)
class Variant:
    """`details` is what the engine must know to call it: input names by position, signatures by length."""

    name: str
    path: Path
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        return KNOWN[self.name][0]

    @property
    def precision(self) -> str:
        return KNOWN[self.name][1]

    @property
    def file(self) -> str:
        """Its place in the bundle."""
        return f"variants/{self.name}/{KNOWN[self.name][3]}"

    def entry(self) -> dict[str, Any]:
        """What the bundle's manifest says of it."""
        return {
            "engine": self.engine,
            "precision": self.precision,
            "file": self.file,
            "size_bytes": self.path.stat().st_size,
            **self.details,
        }
