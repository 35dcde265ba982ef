"""Checkpoint + data → smaller checkpoint: vocabulary first, then layers by distillation."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from apps.rows import dataset_from
from compress.vocabulary import VocabularyConfig, trim_vocabulary
from runtimes.errors import InputError
from runtimes.files import require_replaceable
from trainers.checkpoint import Checkpoint, open_checkpoint
from trainers.distil import DistilConfig, distil
from trainers.finetune import relabel


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
    require_replaceable(out)
    teacher = open_checkpoint(path)
    dataset = relabel(dataset_from(data), teacher.labels)
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


def _about(checkpoint: Checkpoint) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in checkpoint.path.glob("*.safetensors"))
    return {"bytes": size, "accuracy": checkpoint.meta["metrics"].get("test", {}).get("accuracy")}
