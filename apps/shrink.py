"""Checkpoint + data → smaller checkpoint: vocabulary first, then layers by distillation."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compress.vocabulary import VocabularyConfig, trim_vocabulary
from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint, open_checkpoint
from trainers.data import Dataset, load_data, open_data
from trainers.distil import DistilConfig, distil
from trainers.prepare import PrepareConfig, prepare


def shrink(
    path: Path,
    data: str,
    out: Path,
    layers: int | None,
    vocabulary: int | None,
    epochs: int,
    seed: int,
) -> dict[str, Any]:
    """Write the smaller checkpoint; return bytes and test accuracy before and after.

    Raises InputError where neither `layers` nor `vocabulary` is given, or what the steps raise.
    """
    if layers is None and vocabulary is None:
        raise InputError("nothing to do: give --layers, --vocabulary or both")
    teacher, dataset = open_checkpoint(path), dataset_from(data)
    if list(teacher.labels) != list(dataset.label_names):
        raise InputError(
            f"{data}: labels {dataset.label_names} are not the checkpoint's {teacher.labels}; "
            "give the data it was trained on"
        )
    with TemporaryDirectory(prefix="edgewise-") as folder:
        start = teacher
        if vocabulary is not None:
            place = out if layers is None else Path(folder) / "vocabulary"
            texts = dataset.splits["train"].texts
            start = trim_vocabulary(teacher, texts, place, VocabularyConfig(vocabulary))
        if layers is not None:
            most = teacher.limits["max_tokens"]
            config = DistilConfig(layers=layers, epochs=epochs, seed=seed, max_tokens=most)
            start = distil(teacher, start, dataset, out, config)
    return {"before": _about(teacher), "after": _about(open_checkpoint(out)), "path": str(out)}


def dataset_from(data: str) -> Dataset:
    """A prepared data folder as it is; anything else is loaded and prepared with the defaults."""
    if (Path(data) / "data.json").is_file():
        return open_data(Path(data))
    return prepare(load_data(data), PrepareConfig())


def _about(checkpoint: Checkpoint) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in checkpoint.path.glob("*.safetensors"))
    return {"bytes": size, "accuracy": checkpoint.meta["metrics"].get("test", {}).get("accuracy")}
