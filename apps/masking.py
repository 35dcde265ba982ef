"""Checkpoint + data → masked checkpoint, and the words that say what a mask is worth."""

from pathlib import Path
from typing import Any

from apps.rows import dataset_from
from compress.masks import MaskConfig, check_mask, mask_weights
from runtimes.files import require_replaceable
from trainers.checkpoint import open_checkpoint
from trainers.finetune import relabel


def mask(
    path: Path, data: str, out: Path, sparsity: float, kind: str, epochs: int, seed: int
) -> dict[str, Any]:
    """Write the masked checkpoint; return test accuracy before and after, and what the mask did to the file.

    Raises InputError as `compress.masks.mask_weights`.
    """
    require_replaceable(out)
    teacher = open_checkpoint(path)
    most = teacher.limits["max_tokens"]
    config = MaskConfig(sparsity=sparsity, mask=kind, epochs=epochs, seed=seed, max_tokens=most)  # type: ignore[arg-type]
    check_mask(config)
    dataset = relabel(dataset_from(data), teacher.labels)
    made = mask_weights(teacher, dataset, out, config)
    before, after = (one.meta["metrics"].get("test", {}).get("accuracy") for one in (teacher, made))
    about = made.meta["metrics"]["mask"]
    return {"accuracy": {"before": before, "after": after}, "mask": about, "path": str(out)}


def words(result: dict[str, Any]) -> str:
    """The result for a terminal. A mask is called a mask."""
    about, accuracy = result["mask"], result["accuracy"]
    size, packed = about["bytes"], about["gzip_bytes"]
    return (
        f"mask    {about['kind']}: {about['zeros']:.1%} of the encoder's weights are 0 "
        f"({about['of_all']:.1%} of all)\n"
        f"file    {size['before'] / 1e6:.1f} MB before, {size['after'] / 1e6:.1f} MB after: not smaller, "
        f"and not faster\n"
        f"gzip -9 {packed['before'] / 1e6:.1f} MB before, {packed['after'] / 1e6:.1f} MB after: all that a "
        f"mask saves\n"
        f"test    accuracy {accuracy['before']} before, {accuracy['after']} after"
    )
