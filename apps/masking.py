"""Checkpoint + data → masked checkpoint, and the words that say what a mask is worth."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from apps.rows import dataset_from, require_classifier
from compress.masks import MaskConfig, check_mask, mask_weights
from runtimes.files import require_replaceable
from trainers.adopt import open_or_adopt
from trainers.finetune import relabel


def mask(
    path: Path, data: str, out: Path, sparsity: float, kind: str, epochs: int, seed: int
) -> dict[str, Any]:
    """Write the masked checkpoint; return test accuracy before and after, and what the mask did to the file.

    Raises InputError as `compress.masks.mask_weights`.
    """
    from trainers.evaluate import evaluate

    require_replaceable(out)
    with TemporaryDirectory(prefix="edgewise-") as folder:
        teacher = open_or_adopt(path, Path(folder))
        require_classifier(teacher)
        config = MaskConfig(
            sparsity=sparsity,
            mask=kind,  # type: ignore[arg-type]  # checked below
            epochs=epochs,
            seed=seed,
            max_tokens=teacher.limits["max_tokens"],
        )
        check_mask(config)
        dataset = relabel(dataset_from(data), teacher.labels)
        made = mask_weights(teacher, dataset, out, config)
        before = evaluate(teacher, dataset.splits["test"])
    after = made.meta["metrics"]["test"]
    return {
        "accuracy": {"before": before["accuracy"], "after": after["accuracy"], "n": after["n"]},
        "mask": made.meta["metrics"]["mask"],
        "path": str(out),
    }


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
        f"test    accuracy {accuracy['before']:.4f} before, {accuracy['after']:.4f} after "
        f"({accuracy['n']} rows)"
    )
