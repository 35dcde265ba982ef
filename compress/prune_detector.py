"""Take feed-forward neurons out of a detector, those that matter least, and let the rest recover.

The neurons are gone from the file. A layer that keeps none loses its whole feed-forward. Heads and layers
stay: a student (`trainers.detector.distil_detector`) has fewer of those.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from runtimes.engines.patches import PatchConfig, PatchDetector
from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.detector import DetectorConfig, fitted, losses, open_detector, split, write_detector

BATCHES = 20  # of windows, by which importance is measured


@dataclass(frozen=True)
class DetectorPruneConfig:
    """`keep`: share of the feed-forward neurons of all layers together; `steps` of recovery, in batches."""

    keep: float = 0.5
    steps: int = 300
    batch: int = 128
    learning_rate: float = 1e-3
    validation: float = 0.2
    seed: int = 0


def check_slim(config: DetectorPruneConfig) -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    if not 0 <= config.keep < 1:
        raise InputError(f"slim.keep = {config.keep:g}: must be from 0 to below 1")
    if min(config.steps, config.batch) < 1 or config.seed < 0:
        raise InputError("slim: steps and batch must be 1 or more, seed not below 0")
    if not 0 < config.learning_rate < 1 or not 0 < config.validation < 1:
        raise InputError("slim: learning_rate and validation must be within 0 and 1")


def prune_detector(
    teacher: Checkpoint, start: Checkpoint, series: Sequence[Any], out: Path, config: DetectorPruneConfig
) -> Checkpoint:
    """`start` with a share of its neurons, recovered on the training parts with `teacher` as the aim.

    Raises InputError for a detector without a Transformer, which has none.
    """
    check_slim(config)
    model = open_detector(start.path)
    if not sum(model.config.inner[: model.config.depth]):
        raise InputError(f"{start.path}: a line has no neurons to take out; leave [slim] out")
    shape = DetectorConfig(
        "transformer", model.config.window, model.config.patch, steps=config.steps, batch=config.batch,
        masked=0, learning_rate=config.learning_rate, validation=config.validation, seed=config.seed,
    )  # fmt: skip
    _, train, held = split(series, shape)
    small = without(model, kept_neurons(importance(model, train, config), config.keep))
    made = fitted(train, held, shape, teacher=open_detector(teacher.path), start=small)
    step = {"step": "prune_detector", "config": asdict(config), "parent": start.digest}
    figures = {"kind": "pruned", "inner": list(made.config.inner), "validation": losses(made, held)}
    lineage = [*start.meta["lineage"], step]
    return write_detector(made, start.meta["data"], figures, lineage, config.seed, out)


def importance(model: PatchDetector, windows: np.ndarray, config: DetectorPruneConfig) -> list[np.ndarray]:
    """Of each layer (neurons,): the loss that its absence would cost, to the first order.

    |sum of weight * gradient| over the neuron's weights in and out, mean over batches (Molchanov et al. 2019,
    "Importance estimation for neural network pruning").
    """
    random, size = np.random.default_rng(config.seed), model.config.window
    found = [np.zeros(count) for count in model.config.inner]
    for _ in range(BATCHES):
        rows = torch.from_numpy(windows[random.integers(0, len(windows), config.batch)])
        model.zero_grad()
        nn.functional.smooth_l1_loss(model(values=rows[:, :size]).expected, rows).backward()
        for number, layer in enumerate(model.layers):
            if layer.inner:
                found[number] += _first_order(layer).abs().numpy() / BATCHES
    model.zero_grad()
    return found


def _first_order(layer: Any) -> torch.Tensor:
    into = (layer.up.weight * layer.up.weight.grad).sum(dim=1) + layer.up.bias * layer.up.bias.grad
    return (into + (layer.down.weight * layer.down.weight.grad).sum(dim=0)).detach()


def kept_neurons(found: Sequence[np.ndarray], keep: float) -> list[np.ndarray]:
    """Which neurons of each layer stay: of all layers together the share `keep` that matters most."""
    scores = np.concatenate(list(found))
    order = np.argsort(-scores, kind="stable")[: round(keep * len(scores))]
    mask = np.zeros(len(scores), bool)
    mask[order] = True
    ends = np.cumsum([len(one) for one in found])[:-1]
    return [np.flatnonzero(one) for one in np.split(mask, ends)]


def without(model: PatchDetector, kept: Sequence[np.ndarray]) -> PatchDetector:
    """A smaller model with the kept neurons' weights and all else as it was."""
    told = {**model.config.to_dict(), "inner": [len(one) for one in kept]}
    small = PatchDetector(PatchConfig(**told))
    weights = model.state_dict()
    for number, neurons in enumerate(kept):
        for name, axis in (("up.weight", 0), ("up.bias", 0), ("down.weight", 1), ("down.bias", None)):
            key = f"layers.{number}.{name}"
            if not len(neurons):
                weights.pop(key, None)
            elif axis is not None:
                weights[key] = weights[key].index_select(axis, torch.from_numpy(neurons))
    small.load_state_dict(weights)
    return small.eval()
