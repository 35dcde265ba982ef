"""Shape and variant → gated bundle. Everything lies in the work folder by digest, made once and shared."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.exporting import lengths_of
from apps.flow import digest
from apps.shrink import ShrinkConfig, shrink_steps
from compress.calibrate import Calibration
from export.advise import Makings
from export.gate import Budget
from export.pack import pack
from export.variant import CALIBRATED, KNOWN, Variant
from export.variants import export_variant, open_variant
from runtimes.errors import EdgewiseError
from trainers.checkpoint import Checkpoint, open_checkpoint
from trainers.data import Dataset, Split


@dataclass(frozen=True)
class Workshop:
    """`training`: the fields of ShrinkConfig that all trials share (epochs, seed, unlabelled, …)."""

    folder: Path
    teacher: Checkpoint
    dataset: Dataset
    training: dict[str, Any]


class MakeError(EdgewiseError):
    """A variant that cannot be made of any shape: conversion itself failed."""

    exit_code = 2


def shaped(shop: Workshop, shape: dict[str, Any]) -> Checkpoint:
    """The checkpoint of a shape: trained once, then reused; a killed training goes on where it was."""
    wanted = {key: value for key, value in shape.items() if value is not None}
    if not wanted:
        return shop.teacher
    training = dict(shop.training)
    if not any(key in wanted for key in ("layers", "hidden_size", "intermediate_size")) or "keep" in wanted:
        training.pop("unlabelled", None)
    steps = shrink_steps(shop.teacher, shop.dataset, ShrinkConfig(**wanted, **training))
    # A vocabulary is trimmed without training, the same for whatever is made of it.
    parts: list[dict[str, Any]] = [{**wanted, **training}]
    if "vocabulary" in wanted:
        parts.insert(0, {"vocabulary": wanted["vocabulary"]})
    at = shop.teacher
    for step, part in zip(steps, parts, strict=False):
        key = [shop.teacher.digest, shop.dataset.digest, part]
        place = shop.folder / "shapes" / digest(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        at = open_checkpoint(place) if place.exists() else step(at, place)
    return at


def exported(shop: Workshop, checkpoint: Checkpoint, name: str) -> Variant:
    """The variant of a checkpoint, and before it the one that it is quantized from."""
    source = KNOWN[name][2]
    parent = exported(shop, checkpoint, source).path.parent if source else None
    place = shop.folder / "graphs" / f"{checkpoint.digest[:12]}-{name}"
    if place.exists():
        return open_variant(name, place)
    train = shop.dataset.splits["train"]
    rows = Calibration(train.texts, train.labels) if name in CALIBRATED else None
    try:
        return export_variant(name, checkpoint.path, parent, lengths_of(checkpoint), place, rows)
    except EdgewiseError as error:
        raise MakeError(str(error)) from error


def bundled(shop: Workshop, checkpoint: Checkpoint, name: str) -> Path:
    """A bundle of that one variant, gated on the validation rows: the test rows stay unseen."""
    place = shop.folder / "bundles" / f"{checkpoint.digest[:12]}-{name}.bundle"
    if not place.exists():
        rows = shop.dataset.splits["validation"]
        # What is lost against the original is for the search to judge, whatever its budget.
        packed(shop, checkpoint, name, rows, place, max_drop=1.0)
    return place


def packed(
    shop: Workshop, checkpoint: Checkpoint, name: str, rows: Split, out: Path, max_drop: float
) -> None:
    """Pack and gate one variant on all of `rows`, against `checkpoint`. Raises GateError, MakeError."""
    seen = replace(shop.dataset, splits={"test": rows})
    budget = Budget(max_drop=max_drop, samples=len(rows))
    title = out.name.removesuffix(".bundle")
    # No advice: the search tries the neighbours of a variant that fails itself.
    parent = KNOWN[name][2]
    makings = Makings([exported(shop, checkpoint, parent)] if parent else [], advise=False)
    pack(checkpoint, [exported(shop, checkpoint, name)], seen, out, title, budget, makings)
