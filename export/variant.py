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
    "onnx-fp16": ("onnx", "fp16", "onnx-fp32", "model.onnx"),
    "onnx-wi8": ("onnx", "wi8", "onnx-fp32", "model.onnx"),
    "onnx-int4": ("onnx", "int4", "onnx-fp32", "model.onnx"),
    "tflite-fp16": ("litert", "fp16", "tflite-fp32", "model.tflite"),
    "tflite-weight_only_wi8_afp32": ("litert", "weight_only_wi8_afp32", "tflite-fp32", "model.tflite"),
    "tflite-dynamic_wi4_afp32": ("litert", "dynamic_wi4_afp32", "tflite-fp32", "model.tflite"),
    "onnx-static_int8": ("onnx", "static_int8", "onnx-fp32", "model.onnx"),
    "onnx-mixed": ("onnx", "mixed", "onnx-fp32", "model.onnx"),
    "tflite-static_wi8_ai8": ("litert", "static_wi8_ai8", "tflite-fp32", "model.tflite"),
    "tflite-full_int8": ("litert", "full_int8", None, "model.tflite"),
    "tflite-mixed": ("litert", "mixed", "tflite-fp32", "model.tflite"),
    "executorch-fp32": ("executorch", "fp32", None, "model.pte"),
    "executorch-int8": ("executorch", "int8", None, "model.pte"),
}
# What is made where nobody names variants.
DEFAULT = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic_wi8_afp32")
# What can be made of a text generator.
GENERATING = ("onnx-fp32", "onnx-int8", "onnx-int4")
SHIPPED = ("onnx-int4",)  # what is made of one where nobody names variants
# Those that need rows of the training data.
CALIBRATED = frozenset(
    {"onnx-static_int8", "onnx-mixed", "tflite-static_wi8_ai8", "tflite-full_int8", "tflite-mixed"}
)
# Of these a text generator's are the better for some running text (`compress.gptq`).
FITTED = frozenset({"onnx-int4"})
# Precisions that a user's own file may have, and that no step here makes.
ADOPTED: dict[str, tuple[str, str, str | None, str]] = {
    "tflite-int4": ("litert", "int4", None, "model.tflite"),
}


def about(name: str) -> tuple[str, str, str | None, str]:
    """Engine, precision, the variant it is quantized from, file name in the bundle."""
    return KNOWN[name] if name in KNOWN else ADOPTED[name]


@dataclass(frozen=True)
class Variant:
    """`details` is what the engine must know to call it: input names by position, signatures by length.

    And what its making found: the layers that a mixed variant keeps in higher precision, say.
    """

    name: str
    path: Path
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        return about(self.name)[0]

    @property
    def precision(self) -> str:
        return about(self.name)[1]

    @property
    def file(self) -> str:
        """Its place in the bundle."""
        return f"variants/{self.name}/{about(self.name)[3]}"

    def entry(self) -> dict[str, Any]:
        """What the bundle's manifest says of it."""
        return {
            "engine": self.engine,
            "precision": self.precision,
            "file": self.file,
            "size_bytes": self.path.stat().st_size,
            **self.details,
        }
