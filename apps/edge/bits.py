"""Quantization-aware training against rounding after training: `python -m apps.edge.bits 0 1 2`.

The ladder's student in 2 bits a weight: rounded after training; trained on with rounded weights (QAT);
and, as a control, trained on for as many epochs without rounding, then rounded. Prints the table of
docs/qat.md: accuracy of the real int4 files, which hold 2 bits exactly, on the whole test split.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from apps.edge.rungs import INT4, RECIPE, rungs
from apps.edge.tables import spread
from apps.flow import build, digest
from apps.recipe import read_recipe
from compress.qat import QatConfig, quantization_aware, round_weights
from export.variant import KNOWN
from export.variants import export_variant, open_variant
from runtimes import engines
from runtimes.files import writing
from runtimes.tasks import classify
from runtimes.text import Tokenizer
from trainers.checkpoint import Checkpoint, open_checkpoint, seal
from trainers.data import Dataset, Split, open_data
from trainers.distil import DistilConfig, distil
from trainers.files import read_json, write_json

EPOCHS, RATE = 4, 3e-4
BITS = (2,)  # 4 bits cost this student too little to show a gain


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    found = [measured(seed, options.runs) for seed in options.seeds]
    print("| weights | how | " + " | ".join(f"lost in {name}, points" for name in INT4) + " | n |")
    print("|---|---|" + "---|" * len(INT4) + "---|")
    for key in found[0]["rows"]:
        lost = [spread([100 * (one["fp32"] - one["rows"][key][name]) for one in found], 2) for name in INT4]
        print(f"| {key} | {' | '.join(lost)} | {found[0]['n']:,} |")
    print(f"\nfp32 student: {spread([one['fp32'] for one in found], 4)}")


def measured(seed: int, runs: Path) -> dict[str, Any]:
    """{"fp32": accuracy, "n": rows, "rows": {"bits | how": {variant: accuracy}}}; kept and reused."""
    paths = build(rungs(seed)["student"], runs, until="student")
    work = runs / "ag-news" / f"bits-{digest([paths['student'].name, EPOCHS, RATE])}"
    work.mkdir(parents=True, exist_ok=True)
    file = work / "figures.json"
    if not file.is_file():
        write_json(file, _measure(seed, work, paths))
    return dict(read_json(file))


def _measure(seed: int, work: Path, paths: dict[str, Path]) -> dict[str, Any]:
    teacher, student = (open_checkpoint(paths[name]) for name in ("teacher", "student"))
    dataset = open_data(paths["data"])
    test = dataset.splits["test"]
    most = read_recipe(RECIPE).export.lengths[-1]
    control = _once(work / "control", _control, teacher, student, dataset, seed, most)
    rows = {}
    for bits in BITS:
        config = QatConfig(bits=bits, epochs=EPOCHS, learning_rate=RATE, max_tokens=most, seed=seed)
        made = {
            "rounded after training": _once(work / f"ptq-{bits}", _round, student, config),
            "trained on, then rounded": _once(work / f"control-{bits}", _round, control, config),
            "QAT": _once(work / f"qat-{bits}", _qat, teacher, student, dataset, config),
        }
        for how, checkpoint in made.items():
            rows[f"{bits} bits | {how}"] = _accuracies(checkpoint, test)
    fp32 = student.meta["metrics"]["test"]["accuracy"]
    return {"seed": seed, "fp32": fp32, "n": len(test), "rows": rows}


def _once(path: Path, make: Callable[..., object], *given: Any) -> Checkpoint:
    if not path.exists():
        make(path, *given)
    return open_checkpoint(path)


def _qat(out: Path, teacher: Checkpoint, student: Checkpoint, data: Dataset, config: QatConfig) -> None:
    quantization_aware(teacher, student, data, out, config)


def _control(
    out: Path, teacher: Checkpoint, student: Checkpoint, dataset: Dataset, seed: int, most: int
) -> None:
    config = DistilConfig(
        layers=2, hidden_weight=0.0, epochs=EPOCHS, learning_rate=RATE, max_tokens=most, seed=seed
    )
    distil(teacher, student, dataset, out, config)


def _round(out: Path, start: Checkpoint, config: QatConfig) -> None:
    from trainers.model import open_model, save_model

    model = open_model(start.path)
    round_weights(model, config)
    with writing(out) as folder:
        save_model(model, start.path, folder, config.max_tokens)
        step = {"step": "round", "config": {"bits": config.bits}, "parent": start.digest}
        seal(folder, {**start.meta, "metrics": {}, "lineage": [*start.meta["lineage"], step]})


def _accuracies(checkpoint: Checkpoint, test: Split) -> dict[str, float]:
    """Of both engines' int4 files, on every row."""
    lengths = read_recipe(RECIPE).export.lengths
    exports, found = checkpoint.path.with_name(f"{checkpoint.path.name}-exports"), {}
    for name in INT4:
        before = str(KNOWN[name][2])
        for one, parent in ((before, None), (name, exports / before)):
            if not (exports / one).exists():
                export_variant(one, checkpoint.path, parent, lengths, exports / one)
        variant = open_variant(name, exports / name)
        session = engines.module(variant.engine).open(variant.path, threads=1, variant=variant.entry())
        tokenizer = Tokenizer.from_bytes(
            (checkpoint.path / "tokenizer.json").read_bytes(), checkpoint.limits["max_tokens"]
        )
        model = classify.open(session, tokenizer, checkpoint.labels, checkpoint.limits, {"variant": name})
        answers = model.logits(test.texts).argmax(axis=1)
        found[name] = float((answers == np.asarray(test.labels)).mean())
    shutil.rmtree(exports)
    return found


if __name__ == "__main__":
    main()
