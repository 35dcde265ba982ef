"""Checkpoint → ONNX through Optimum."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

# What the name of an architecture ends in → what Optimum calls its task.
_TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForQuestionAnswering": "question-answering",
    "Model": "feature-extraction",
}


def to_onnx(checkpoint: str, target: str) -> None:
    """Write the fp32 graph with free batch and length. Runs through `in_child`: Optimum talks a lot.

    The gate compares the graph with the checkpoint afterwards, so Optimum's own check is left out.
    """
    from optimum.exporters.onnx import main_export

    with TemporaryDirectory(dir=Path(target).parent) as folder:
        main_export(checkpoint, folder, task=_task(checkpoint), device="cpu", do_validation=False)
        (Path(folder) / "model.onnx").replace(target)


def _task(checkpoint: str) -> str:
    name = json.loads((Path(checkpoint) / "config.json").read_bytes())["architectures"][0]
    return next(task for suffix, task in _TASKS.items() if name.endswith(suffix))
