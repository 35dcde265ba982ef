"""Structured pruning: what is taken out is gone from the file, and the rest is trained to make up for it."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from compress.importance import Importance, Measure, importance
from runtimes.errors import InputError
from runtimes.files import writing
from trainers.checkpoint import Checkpoint, open_checkpoint, seal
from trainers.data import Dataset
from trainers.distil import DistilConfig, check_distil, check_lesson, distil
from trainers.finetune import TrainConfig
from trainers.prepare import some
from trainers.shape import Kept, cut, encoder_parameters, family_of, head_size, layers_of, strongest, whole
from trainers.squad import QuestionSet

# From this many neurons on their number is a multiple of 8: matrix kernels work in such blocks.
_ROUND_FROM = 128


@dataclass(frozen=True)
class PruneConfig(TrainConfig):
    """`keep`: the share of the encoder's parameters (embeddings not counted) that stays. First the least
    important layers go until `layers` are left (where given), then the least important heads and neurons.
    `importance` is taylor, scored on `score_rows` train rows, or magnitude. `steps` cuts, ever smaller ones,
    lead to `keep`; after each the model recovers, taught by the unpruned one: one epoch after all but the
    last, `epochs` after that. `temperature`, `alpha` and `hidden_weight` as in [distil]."""

    keep: float = 0.5
    layers: int | None = None
    importance: Measure = "taylor"
    score_rows: int = 512
    steps: int = 2
    temperature: float = 2.0
    alpha: float = 0.7
    hidden_weight: float = 1.0
    epochs: int = 2
    learning_rate: float = 2e-4


def check_prune(config: PruneConfig) -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    check_distil(_recovery(config, 1, config.epochs), "prune")
    if not 0 < config.keep <= 1:
        raise InputError(f"prune.keep = {config.keep}: must be a share above 0 and up to 1")
    if config.layers is not None and config.layers < 1:
        raise InputError(f"prune.layers = {config.layers}: must be 1 or more")
    if config.importance not in ("taylor", "magnitude"):
        raise InputError(f"prune.importance = {config.importance!r}: must be taylor or magnitude")
    if not 1 <= config.steps <= 20 or config.score_rows < 1:
        raise InputError("prune: steps must be 1 to 20, score_rows 1 or more")


def prune(
    teacher: Checkpoint, start: Checkpoint, dataset: Dataset | QuestionSet, out: Path,
    config: PruneConfig | None = None,
) -> Checkpoint:  # fmt: skip
    """A checkpoint at `out` with `config.keep` of the encoder parameters of `start`, taught by `teacher`.

    `from_pretrained` opens it. Killed and called again, it goes on from the last finished cut. Raises
    InputError for an architecture, a value or data that cannot serve.
    """
    config = config or PruneConfig()
    check_prune(config)
    check_lesson(config, teacher, start, dataset, "prune")
    from accelerate import PartialState

    state = PartialState()
    shares, full = schedule(config.keep, config.steps), _encoder_size(start)
    job = [asdict(config), teacher.digest, start.digest, dataset.digest]
    work = f".{out.name}.{hashlib.sha256(json.dumps(job).encode()).hexdigest()[:8]}"
    for number, share in enumerate(shares, 1):
        last = number == len(shares)
        place = out if last else out.with_name(f"{work}-{number}")
        bare = out.with_name(f"{work}-{number}-bare")
        if last or not place.exists():
            if state.is_main_process:
                _cut_to(start, dataset.splits["train"], bare, share * full, config)
            state.wait_for_everyone()
            recovery = _recovery(config, _depth(open_checkpoint(bare)), config.epochs if last else 1)
            distil(teacher, open_checkpoint(bare), dataset, place, recovery)
        start = open_checkpoint(place)
    if state.is_main_process:
        for left in out.parent.glob(f"{work}-*"):
            shutil.rmtree(left)
    return start


def schedule(keep: float, steps: int) -> list[float]:
    """Shares to keep after each cut: large cuts first (the cubic of Zhu and Gupta 2017, arXiv 1710.01878)."""
    return [keep + (1 - keep) * (1 - step / steps) ** 3 for step in range(1, steps + 1)]


def _recovery(config: PruneConfig, layers: int, epochs: int) -> DistilConfig:
    shared = {one.name for one in fields(DistilConfig)} & {one.name for one in fields(PruneConfig)}
    values = {name: getattr(config, name) for name in shared}
    return DistilConfig(**{**values, "layers": layers, "epochs": epochs})


def _encoder_size(checkpoint: Checkpoint) -> int:
    from trainers.tasks import task_of

    model = task_of(checkpoint.task).open(checkpoint.path)
    return encoder_parameters(model, family_of(model, checkpoint.path))


def _depth(checkpoint: Checkpoint) -> int:
    from trainers.tasks import task_of

    model = task_of(checkpoint.task).open(checkpoint.path)
    return len(layers_of(model, family_of(model, checkpoint.path)))


def _cut_to(start: Checkpoint, train: Any, out: Path, target: float, config: PruneConfig) -> None:
    """`start` cut to about `target` encoder parameters, not trained yet, as a checkpoint of its own."""
    from trainers.model import open_tokenizer, save_model
    from trainers.tasks import task_of

    model = task_of(start.task).open(start.path)
    tokenizer = open_tokenizer(start.path, config.max_tokens)
    rows = some(train, config.score_rows, config.seed)
    scores = importance(model, tokenizer, rows, config.importance, config.score_rows, start.task)
    kept = choose(model, scores, target, config.layers)
    smaller = cut(model, kept, start.path)
    about = {
        "layers": kept.layers,
        "heads": [len(heads) for heads in kept.heads],
        "neurons": len(kept.neurons[0]),
        "parameters": encoder_parameters(smaller, family_of(smaller, start.path)),
    }
    step = {"step": "prune", "config": {**asdict(config), "kept": about}, "parent": start.digest}
    with writing(out) as folder:
        save_model(smaller, start.path, folder, start.limits["max_tokens"])
        seal(folder, {**start.meta, "metrics": {}, "lineage": [*start.meta["lineage"], step]})


def choose(model: Any, scores: Importance, target: float, layers: int | None) -> Kept:
    """What stays so that the encoder has about `target` parameters: layers, then heads and neurons alike.

    Heads compete across layers (each layer keeps one at least); each layer keeps as many neurons as the next,
    its own best. Raises InputError where `layers` alone are already too few or too many.
    """
    family = family_of(model, "model")
    everything = whole(model, family)
    kept_layers = everything.layers
    if layers is not None:
        if layers > len(kept_layers):
            raise InputError(f"prune.layers = {layers}: the model has {len(kept_layers)}; take fewer")
        kept_layers = strongest(scores.layers, layers)
    stack = [layers_of(model, family)[layer] for layer in kept_layers]
    full = sum(_size(layer) for layer in stack)
    heads = _best_heads(scores, kept_layers, min(1.0, target / full))
    count = _neurons_within(model, stack, [len(there) for there in heads], target)
    neurons = [strongest(scores.neurons[layer], count) for layer in kept_layers]
    return Kept(kept_layers, heads, neurons, everything.width)


def _size(layer: Any) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _neurons_within(model: Any, stack: list[Any], heads: list[int], target: float) -> int:
    """How many neurons a layer may have beside its `heads` for `target` parameters in all of `stack`."""
    family = family_of(model, "model")
    width, size = getattr(model.config, family.width), head_size(model, family)
    spent = 0
    for layer, stay in zip(stack, heads, strict=True):
        there = layer.get_submodule(family.query).out_features // size
        neurons = layer.get_submodule(family.up).out_features
        spent += _size(layer) - neurons * (2 * width + 1) - (there - stay) * size * (4 * width + 3)
    most = stack[0].get_submodule(family.up).out_features
    count = round((target - spent) / (len(stack) * (2 * width + 1)))
    if count >= _ROUND_FROM:
        count = round(count / 8) * 8
    return min(max(1, count), most)


def _best_heads(scores: Importance, layers: list[int], share: float) -> list[list[int]]:
    """The best `share` of all heads, wherever they are, and at least the best one of each layer."""
    ranked = sorted(
        ((float(score), layer, head) for layer in layers for head, score in enumerate(scores.heads[layer])),
        reverse=True,
    )
    best = {(layer, int(scores.heads[layer].argmax())) for layer in layers}
    count = max(len(best), round(share * len(ranked)))
    for _, layer, head in ranked:
        if len(best) >= count:
            break
        best.add((layer, head))
    return [sorted(head for where, head in best if where == layer) for layer in layers]
