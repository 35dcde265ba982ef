"""A detector as what the exporters trace: one window of numbers in, what was expected out."""

import json
from pathlib import Path
from typing import Any

from export.arena import arena_bytes, buffers_of
from runtimes.bundle import NUMBERS


def is_detector(checkpoint: Path) -> bool:
    """Whether a folder is the checkpoint of a model that reads windows of numbers, not texts."""
    about = checkpoint / "checkpoint.json"
    return about.is_file() and bool(json.loads(about.read_bytes())["task"] == NUMBERS)


def border_of(model: str) -> dict[str, Any]:
    """What firmware must know of an all-integer detector's .tflite: window and patch in points, `input` and
    `output` as (scale, zero point), and the `arena` of its tensors in bytes (`export.arena`).

    Runs through `in_child`.
    """
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=model).get_signature_runner("window")
    (into,), (out,) = runner.get_input_details().values(), runner.get_output_details().values()
    window = int(into["shape"][1])
    return {
        "window": window,
        "patch": int(out["shape"][1]) - window,
        "input": _scale(into),
        "output": _scale(out),
        "arena": arena_bytes(buffers_of(Path(model))),
    }


def _scale(detail: dict[str, Any]) -> tuple[float, int]:
    scale, zero_point = detail["quantization"]
    return float(scale), int(zero_point)


def graph_of(checkpoint: Path) -> tuple[Any, Any]:
    """The model as a module `values` (batch, window) → `expected` (batch, window + patch), and a sample of
    batch 1: noise by a fixed seed, so that no tracer takes it for a constant."""
    import torch

    from runtimes.engines.torch import head_of

    opener, outputs = head_of(checkpoint)
    window = json.loads((checkpoint / "checkpoint.json").read_bytes())["limits"]["window"]

    class Expecting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = opener.from_pretrained(checkpoint, local_files_only=True)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.model(values=values)[outputs[0]]  # type: ignore[no-any-return]

    sample = torch.randn(1, window, generator=torch.Generator().manual_seed(0))
    return Expecting().eval(), sample
