"""Checkpoint + test rows → gated bundle, outside of a recipe."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from apps.rows import dataset_from, questions_from, series_from, test_rows
from compress.calibrate import Calibration
from export.advise import Makings
from export.gate import GENERATOR_BUDGET, Budget
from export.pack import pack
from export.variant import CALIBRATED, DEFAULT, FITTED, GENERATING, KNOWN, SHIPPED, Variant
from export.variants import export_variant
from runtimes.bundle import NUMBERS
from runtimes.errors import InputError
from runtimes.files import require_replaceable
from runtimes.generation import TASK as GENERATION
from trainers.adopt import open_or_adopt
from trainers.checkpoint import Checkpoint
from trainers.examples import examples
from trainers.finetune import relabel
from trainers.reader import TASK as READER
from trainers.series_data import windows_of
from trainers.texts import running_texts

_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def export_checkpoint(
    source: Path, data: str | None, out: Path, wanted: list[str] | None, max_drop: float | None = None
) -> dict[str, Any]:
    """Make, gate and pack the wanted variants (default: DEFAULT, of a generator SHIPPED). `max_drop`: what
    the metric may lose; None: as the task's budget has it. Raises GateError, InputError.

    `source` is a checkpoint, or any folder with a classifier, a reader or a language model that
    `from_pretrained` opens.
    """
    if not source.is_dir():
        raise InputError(f"{source}: not a checkpoint; make one with `edgewise train`")
    if data is None:
        raise InputError(
            "the gate needs test rows: give --data (a folder of `edgewise build`, a file, a hub id)"
        )
    if out.suffix == ".zip":
        raise InputError(f"{out}: a checkpoint is exported to a folder; cut that down to a .zip afterwards")
    require_replaceable(out)
    require_known(wanted or [], KNOWN)
    with TemporaryDirectory(prefix="edgewise-") as folder:
        checkpoint = open_or_adopt(source, Path(folder))
        writes = checkpoint.task == GENERATION
        names = list(dict.fromkeys(wanted or (SHIPPED if writes else DEFAULT)))
        if writes:
            require_known(names, GENERATING)
        dataset = test_rows(data, checkpoint.task, checkpoint.labels)
        lengths = lengths_of(checkpoint)
        learn = (FITTED if writes else CALIBRATED).intersection(names)
        calibration = _calibration(data, checkpoint) if learn else None
        made: dict[str, Variant] = {}
        needed = {KNOWN[name][2] for name in names} | set(names)
        for name in (name for name in KNOWN if name in needed):
            parent = Path(folder) / str(KNOWN[name][2]) if KNOWN[name][2] else None
            out_of = Path(folder) / name
            made[name] = export_variant(name, checkpoint.path, parent, lengths, out_of, calibration)
        name = out.name.removesuffix(".bundle")
        makings = Makings(list(made.values()), checkpoint.path, calibration)
        chosen, budget = [made[one] for one in names], GENERATOR_BUDGET if writes else Budget()
        if max_drop is not None:
            budget = replace(budget, max_drop=max_drop)
        packed = pack(checkpoint, chosen, dataset, out, name, budget, makings)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return {"bundle": str(packed.path), "bytes": size, "parity": packed.parity}


def require_known(names: Iterable[str], known: Collection[str]) -> None:
    """Raises InputError for a variant that is not one of these."""
    for name in names:
        if name not in known:
            raise InputError(f"variant {name!r} is not one of {', '.join(known)}")


def lengths_of(checkpoint: Checkpoint) -> list[int]:
    """Input lengths in tokens for graphs of fixed shape, up to what the checkpoint takes; of a detector its
    window."""
    if checkpoint.task == GENERATION:
        return []
    if checkpoint.task == NUMBERS:
        return [checkpoint.limits["window"]]
    most = checkpoint.limits["max_tokens"]
    return [*(length for length in _LENGTHS if length < most), most]


def _calibration(data: str, checkpoint: Checkpoint) -> Calibration:
    """Rows of the train split, which the gate does not measure on where the data has a test split."""
    if checkpoint.task == NUMBERS:
        windows = windows_of(series_from(data), checkpoint.limits["window"], checkpoint.limits["patch"])
        return Calibration(windows, [0] * len(windows))
    if checkpoint.task == GENERATION:
        texts = running_texts(data).splits["train"]
        return Calibration(texts, [0] * len(texts))
    if checkpoint.task == READER:
        return Calibration(*examples(questions_from(data).splits["train"]))
    train = relabel(dataset_from(data), checkpoint.labels).splits["train"]
    return Calibration(*examples(train))
