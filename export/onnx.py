"""Checkpoint → ONNX through Optimum; a detector, which Optimum does not know, through torch."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from export.decoder import is_decoder, to_decoder
from export.windows import graph_of, is_detector

# What the name of an architecture ends in → what Optimum calls its task.
_TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForQuestionAnswering": "question-answering",
    "Model": "feature-extraction",
}


def to_onnx(checkpoint: str, target: str) -> dict[str, Any]:
    """Write the fp32 graph with free batch and (of texts) length; return details, of decoders their cache.
    Runs through `in_child`, as Optimum talks a lot.

    The gate compares the graph with the checkpoint afterwards, so Optimum's own check is left out.
    """
    if is_detector(Path(checkpoint)):
        _windows_to_onnx(Path(checkpoint), target)
        return {}
    if is_decoder(Path(checkpoint)):
        return to_decoder(checkpoint, target)
    from optimum.exporters.onnx import main_export

    with TemporaryDirectory(dir=Path(target).parent) as folder:
        main_export(checkpoint, folder, task=_task(checkpoint), device="cpu", do_validation=False)
        (Path(folder) / "model.onnx").replace(target)
    return {}


def _task(checkpoint: str) -> str:
    name = json.loads((Path(checkpoint) / "config.json").read_bytes())["architectures"][0]
    return next(task for suffix, task in _TASKS.items() if name.endswith(suffix))


def _windows_to_onnx(checkpoint: Path, target: str) -> None:
    """`values` (batch, window) → `expected` (batch, window + patch)."""
    import torch

    graph, sample = graph_of(checkpoint)
    free = {"values": {0: "batch"}, "expected": {0: "batch"}}
    names: dict[str, Any] = {"input_names": ["values"], "output_names": ["expected"], "dynamic_axes": free}
    with torch.inference_mode():
        torch.onnx.export(graph, (sample,), target, dynamo=False, opset_version=17, **names)
