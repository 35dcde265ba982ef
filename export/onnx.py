"""Checkpoint → ONNX through Optimum."""

from pathlib import Path
from tempfile import TemporaryDirectory


def to_onnx(checkpoint: str, target: str) -> None:
    """Write the fp32 graph with free batch and length. Runs through `in_child`: Optimum talks a lot.

    The gate compares the graph with the checkpoint afterwards, so Optimum's own check is left out.
    """
    from optimum.exporters.onnx import main_export

    with TemporaryDirectory(dir=Path(target).parent) as folder:
        main_export(checkpoint, folder, task="text-classification", device="cpu", do_validation=False)
        (Path(folder) / "model.onnx").replace(target)
