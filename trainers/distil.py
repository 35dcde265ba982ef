"""Distil a teacher into a student with fewer layers."""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.data import Dataset
from trainers.finetune import TrainConfig, check_config, check_splits, work_folder, write_checkpoint

if TYPE_CHECKING:
    import numpy as np

    from trainers.fit import Loss

# Where the encoder layers lie in the model, and what the config calls their number.
_LAYERS = {
    "bert": ("bert.encoder", "layer", "num_hidden_layers"),
    "roberta": ("roberta.encoder", "layer", "num_hidden_layers"),
    "electra": ("electra.encoder", "layer", "num_hidden_layers"),
    "distilbert": ("distilbert.transformer", "layer", "n_layers"),
}


@dataclass(frozen=True)
class DistilConfig(TrainConfig):
    """`layers` the student keeps; loss = alpha T^2 KL(teacher || student at temperature T)
    + (1 - alpha) cross entropy + hidden_weight * distance of the normalised [CLS] states."""

    layers: int = 3
    temperature: float = 2.0
    alpha: float = 0.7
    hidden_weight: float = 1.0
    epochs: int = 4
    learning_rate: float = 2e-4


def distil(
    teacher: Checkpoint, start: Checkpoint, dataset: Dataset, out: Path, config: DistilConfig | None = None
) -> Checkpoint:
    """A student at `out`: evenly spaced layers of `start`, taught by `teacher` on `dataset`.

    `start` may have another vocabulary than the teacher: each reads the text with its own tokenizer, and the
    losses compare logits (Hinton et al. 2015, arXiv 1503.02531) and [CLS] states (patient distillation, Sun
    et al. 2019, arXiv 1908.09355), which need no alignment of tokens. The teacher answers once a row.
    """
    config = config or DistilConfig()
    _check(config, teacher, start, dataset)
    import transformers

    from trainers.fit import fit, rows_of
    from trainers.model import open_tokenizer

    transformers.set_seed(config.seed)
    student, kept = student_from(start, config.layers)
    layers = [layer + 1 for layer in kept] if config.hidden_weight else []
    parent = {"teacher": teacher.digest, "start": start.digest}
    job = {"config": asdict(config), "data": dataset.digest, **parent}
    work = work_folder(out)
    answers = _teacher_answers(teacher, dataset.splits["train"].texts, layers, student, work, job)
    tokenizer = open_tokenizer(start.path, config.max_tokens)
    train = rows_of(dataset.splits["train"], tokenizer, answers)
    validation = rows_of(dataset.splits["validation"], tokenizer)
    weights = dataset.source.get("prepared", {}).get("class_weights")
    loss = distil_loss(config, weights)
    figures = fit(student, train, validation, tokenizer.pad_id, loss, config, work, job)
    figures["kept_layers"] = kept
    step = {"step": "distil", "config": asdict(config), "parent": start.digest, "teacher": teacher.digest}
    lineage = [*start.meta["lineage"], step]
    return write_checkpoint(student, start.path, dataset, config, figures, lineage, out)


def check_distil(config: DistilConfig) -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    check_config(config, "distil")
    if config.layers < 1 or config.temperature <= 0 or not 0 <= config.alpha <= 1 or config.hidden_weight < 0:
        raise InputError(
            "distil: layers must be 1 or more, temperature above 0, alpha 0 to 1, hidden_weight not below 0"
        )


def _check(config: DistilConfig, teacher: Checkpoint, start: Checkpoint, dataset: Dataset) -> None:
    check_distil(config)
    check_splits(dataset)
    if not teacher.labels == start.labels == dataset.label_names:
        raise InputError(
            "distil: teacher, start and data have different labels; make them from the same data"
        )


def student_from(start: Checkpoint, layers: int) -> tuple[Any, list[int]]:
    """A model with `layers` evenly spaced layers of `start`, and their numbers. InputError as it says."""
    import torch

    from trainers.model import open_model

    model = open_model(start.path)
    kind = model.config.model_type
    if kind not in _LAYERS:
        raise InputError(f"{start.path}: {kind} cannot lose layers yet; supported: {', '.join(_LAYERS)}")
    where, name, count = _LAYERS[kind]
    encoder = model.get_submodule(where)
    stack = getattr(encoder, name)
    if layers > len(stack):
        raise InputError(f"distil.layers = {layers}: {start.path.name} has {len(stack)}; take fewer")
    kept = evenly_spaced(layers, len(stack))
    setattr(encoder, name, torch.nn.ModuleList(copy.deepcopy(stack[layer]) for layer in kept))
    setattr(model.config, count, layers)
    return model, kept


def evenly_spaced(chosen: int, total: int) -> list[int]:
    """`chosen` of `range(total)`, first and last among them; for one, the last."""
    if chosen == 1:
        return [total - 1]
    return [i * (total - 1) // (chosen - 1) for i in range(chosen)]


def _teacher_answers(
    teacher: Checkpoint, texts: list[str], layers: list[int], student: Any, work: Path, job: dict[str, Any]
) -> "dict[str, np.ndarray]":
    """The teacher's logits and [CLS] states for every train row, kept beside the resume points."""
    import numpy as np
    from accelerate import PartialState

    from trainers.fit import same_job

    file, state = work / "teacher.npz", PartialState()
    if state.is_main_process:
        same_job(work, job)
        if not file.is_file():
            _ask(teacher, texts, layers, student, file)
    state.wait_for_everyone()
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _ask(teacher: Checkpoint, texts: list[str], layers: list[int], student: Any, file: Path) -> None:
    import os

    import numpy as np

    from trainers.evaluate import predict_model
    from trainers.model import open_model, open_tokenizer

    model = open_model(teacher.path)
    if layers and model.config.hidden_size != student.config.hidden_size:
        raise InputError("distil.hidden_weight: teacher and start differ in hidden size; set it to 0")
    if layers and model.config.num_hidden_layers < max(layers):
        raise InputError("distil.hidden_weight: the teacher has fewer layers than start; set it to 0")
    tokenizer = open_tokenizer(teacher.path, teacher.limits["max_tokens"])
    logits, states = predict_model(model, tokenizer, texts, layers=layers or None)
    arrays = {"teacher_logits": logits} | ({} if states is None else {"teacher_states": states})
    beside = file.with_name(f".teacher.tmp-{os.getpid()}.npz")
    np.savez(beside, **arrays)  # type: ignore[arg-type]
    beside.replace(file)


def distil_loss(config: DistilConfig, weights: list[float] | None) -> "Loss":
    """The loss of DistilConfig; on rows without a teacher's answers (validation) plain cross entropy."""
    import torch
    from torch.nn import functional as F

    from trainers.fit import Batch, inputs_of

    weight = torch.tensor(weights) if weights else None
    heat = config.temperature

    def loss(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = "teacher_states" in batch
        output = model(**inputs_of(batch), output_hidden_states=wanted)
        logits = output.logits.float()
        hard = F.cross_entropy(logits, batch["labels"], None if weight is None else weight.to(logits.device))
        if "teacher_logits" not in batch:
            return hard, logits
        softened = F.log_softmax(batch["teacher_logits"] / heat, -1)
        soft = F.kl_div(F.log_softmax(logits / heat, -1), softened, reduction="batchmean", log_target=True)
        total = config.alpha * heat**2 * soft + (1 - config.alpha) * hard
        if wanted:
            cls = torch.stack([state[:, 0] for state in output.hidden_states[1:]], 1).float()
            far = F.normalize(cls, dim=-1) - F.normalize(batch["teacher_states"], dim=-1)
            total = total + config.hidden_weight * far.square().sum(-1).mean()
        return total, logits

    return loss
