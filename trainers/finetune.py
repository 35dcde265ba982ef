"""Fine-tune a base model, or go on from a checkpoint, on labelled texts."""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.checkpoint import MANIFEST, Checkpoint, open_checkpoint, seal
from trainers.data import Dataset
from trainers.sources import Source, find

TASK = "text-classification"
# Refused beyond this by whatever serves the model: a longer text is cut to max_tokens anyway.
MAX_CHARS = 20_000
MAX_BATCH = 64


@dataclass(frozen=True)
class TrainConfig:
    """`warmup` is a share of all steps; `patience` counts epochs without a better `metric` on validation
    (0: never stop early); `precision` auto is bf16 on GPUs that compute in it and on CPUs with AMX, fp16 on
    other GPUs, else fp32; `save_every` counts optimizer steps between resume points
    (besides the epochs' ends)."""

    epochs: int = 3
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_tokens: int = 128
    patience: int = 2
    metric: Literal["macro_f1", "accuracy", "exact"] = "macro_f1"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    save_every: int = 200
    seed: int = 0


def check_config(config: TrainConfig, section: str = "train") -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    for key in ("epochs", "batch_size", "gradient_accumulation", "save_every"):
        if getattr(config, key) < 1:
            raise InputError(f"{section}.{key} = {getattr(config, key)}: must be 1 or more")
    if config.max_tokens < 4:
        raise InputError(f"{section}.max_tokens = {config.max_tokens}: must be 4 or more")
    if not 0 < config.learning_rate < 1:
        raise InputError(f"{section}.learning_rate = {config.learning_rate}: must be above 0 and below 1")
    if not 0 <= config.warmup <= 1 or config.weight_decay < 0 or config.patience < 0 or config.seed < 0:
        raise InputError(f"{section}: warmup must be 0 to 1; weight_decay, patience and seed not below 0")
    kinds = get_type_hints(type(config))
    for key in ("metric", "precision"):
        known = get_args(kinds[key])
        if getattr(config, key) not in known:
            raise InputError(f"{section}.{key} = {getattr(config, key)!r}: must be one of {', '.join(known)}")


def finetune(dataset: Dataset, base: Path | str, out: Path, config: TrainConfig | None = None) -> Checkpoint:
    """A checkpoint at `out`, trained from `base` (a name, a folder, or another checkpoint) on `dataset`.

    `dataset` is prepared (train, validation, test). Killed and called again, it goes on from the last resume
    point. Works as it is under `torchrun` and `accelerate launch`; the first process writes.
    """
    config = config or TrainConfig()
    check_config(config)
    check_splits(dataset)
    import transformers

    from trainers.fit import cross_entropy, fit, rows_of
    from trainers.model import check_max_tokens, open_model, open_tokenizer

    source = find(str(base), "model")
    transformers.set_seed(config.seed)
    model = open_model(source.path, dataset.label_names)
    check_max_tokens(model, config.max_tokens)
    tokenizer = open_tokenizer(source.path, config.max_tokens)
    train, validation = (rows_of(dataset.splits[name], tokenizer) for name in ("train", "validation"))
    loss = cross_entropy(dataset.source.get("prepared", {}).get("class_weights"))
    parent, lineage = parents(source)
    job = {"config": asdict(config), "data": dataset.digest, "base": parent}
    figures = fit(model, train, validation, tokenizer.pad_id, loss, config, work_folder(out), job)
    step = {"step": "finetune", "config": asdict(config), "parent": parent}
    return write_checkpoint(model, source.path, dataset, config, figures, [*lineage, step], out)


def check_splits(dataset: Dataset) -> None:
    missing = [name for name in ("train", "validation", "test") if not dataset.splits.get(name)]
    if missing:
        raise InputError(f"{dataset.name}: no {missing[0]} rows; run prepare() first")


def work_folder(out: Path) -> Path:
    """Where the resume points of a run lie until its checkpoint is whole."""
    return out.with_name(f".{out.name}.work")


def parents(source: Source) -> tuple[str, list[dict[str, Any]]]:
    """The digest of what training starts from, and its lineage."""
    if (source.path / MANIFEST).is_file():
        checkpoint = open_checkpoint(source.path)
        return checkpoint.digest, list(checkpoint.meta["lineage"])
    origin = {"name": source.path.name if source.place == "file" else source.name, "place": source.place}
    return source.digest, [{"step": "base", **origin, "revision": source.revision, "digest": source.digest}]


def write_checkpoint(
    model: Any, tokenizer_from: Path, dataset: Dataset, config: TrainConfig, figures: dict[str, Any],
    lineage: list[dict[str, Any]], out: Path,
) -> Checkpoint:  # fmt: skip
    """Save, evaluate on validation and test, seal, and drop the resume points. The first process does it."""
    from accelerate import PartialState

    from trainers.evaluate import evaluate_model
    from trainers.model import open_model, open_tokenizer, save_model

    state = PartialState()
    if state.is_main_process:
        with writing(out) as new:
            save_model(model, tokenizer_from, new, config.max_tokens)
            # Opened again: what counts is the saved model in fp32, not the one in mixed precision.
            saved, tokenizer = open_model(new), open_tokenizer(new, config.max_tokens)
            splits = {name: dataset.splits[name] for name in ("validation", "test")}
            metrics = {name: evaluate_model(saved, tokenizer, split) for name, split in splits.items()}
            meta = {
                "task": TASK,
                "labels": dataset.label_names,
                "limits": {"max_tokens": config.max_tokens, "max_chars": MAX_CHARS, "max_batch": MAX_BATCH},
                "data": dataset.source,
                "metrics": {**metrics, "training": figures},
                "seed": config.seed,
                "lineage": lineage,
            }
            seal(new, meta)
        shutil.rmtree(work_folder(out), ignore_errors=True)
    state.wait_for_everyone()
    return open_checkpoint(out)


def refresh(
    checkpoint: Checkpoint, old: Dataset, new: Dataset, out: Path, config: TrainConfig | None = None,
    replay: float = 0.0,
) -> Checkpoint:  # fmt: skip
    """Go on from `checkpoint` on `new`, and tell what that did to the old test and to the new one.

    metrics["refresh"] has accuracy and macro F1 before and after on both tests; `forgetting` is what was lost
    on the old test, `drift` how much worse the old model does on the new test than on the old. `replay` adds
    that share of the old train rows to the new ones.
    """
    from trainers.evaluate import evaluate
    from trainers.prepare import subset

    if not 0 <= replay <= 1:
        raise InputError(f"train.replay = {replay}: must be a share from 0 to 1")
    old, new = relabel(old, checkpoint.labels), relabel(new, checkpoint.labels)
    if replay:
        kept = subset(old.splits["train"], max(1, round(replay * len(old.splits["train"]))), 0)
        train = new.splits["train"]
        mixed = replace(train, texts=train.texts + kept.texts, labels=train.labels + kept.labels)
        new = replace(new, splits={**new.splits, "train": mixed})
    tests = {"old_test": old.splits["test"], "new_test": new.splits["test"]}
    before = {name: _short(evaluate(checkpoint, split)) for name, split in tests.items()}
    made = finetune(new, checkpoint.path, out, config)
    after = {name: _short(evaluate(made, split)) for name, split in tests.items()}
    report: dict[str, Any] = {name: {"before": before[name], "after": after[name]} for name in tests}
    report["forgetting"] = before["old_test"]["accuracy"] - after["old_test"]["accuracy"]
    report["drift"] = before["old_test"]["accuracy"] - before["new_test"]["accuracy"]
    report["replay"] = replay
    meta = {**made.meta, "metrics": {**made.meta["metrics"], "refresh": report}}
    return seal(made.path, meta)


def _short(report: dict[str, Any]) -> dict[str, float]:
    return {"accuracy": report["accuracy"], "macro_f1": report["macro"]["f1"], "n": report["n"]}


def relabel(dataset: Dataset, labels: list[str]) -> Dataset:
    """The data set with a checkpoint's labels, in its order. InputError for a label that it does not know."""
    unknown = sorted(set(dataset.label_names) - set(labels))
    if unknown:
        known = ", ".join(labels)
        raise InputError(f"{dataset.name}: label {unknown[0]!r} is not one of the checkpoint's: {known}")
    to = [labels.index(name) for name in dataset.label_names]
    splits = {k: replace(s, labels=[to[y] for y in s.labels]) for k, s in dataset.splits.items()}
    source = dict(dataset.source)
    weights = source.get("prepared", {}).get("class_weights")
    if weights:
        moved = dict(zip(to, weights, strict=True))
        weights = [moved.get(label, 0.0) for label in range(len(labels))]
        source["prepared"] = {**source["prepared"], "class_weights": weights}
    return replace(dataset, label_names=list(labels), splits=splits, source=source)
