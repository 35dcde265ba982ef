"""Unstructured masks: weights set to nought where they are. The file stays as large, the model as slow.

What such a mask saves is seen only by an archiver: the noughts gzip well. A structured cut (`compress.prune`)
is what makes a model smaller.
"""

import gzip
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint, seal
from trainers.data import Dataset
from trainers.distil import DistilConfig, check_distil
from trainers.finetune import TrainConfig, check_splits, work_folder, write_checkpoint
from trainers.shape import family_of, layers_of

if TYPE_CHECKING:
    import torch

    from trainers.fit import Loss, Rows

Kind = Literal["global", "layer", "movement", "2:4"]
KINDS: tuple[Kind, ...] = ("global", "layer", "movement", "2:4")


@dataclass(frozen=True)
class MaskConfig(TrainConfig):
    """`sparsity`: the share of the encoder's Linear weights that becomes 0 (embeddings, norms, biases and the
    head are left alone). `mask`: global and layer keep the largest weights of all matrices together or of
    each one; movement those that training moves away from 0, learned in one epoch more; 2:4 the two largest
    of every four along a row (sparsity 0.5). `epochs` of recovery follow with the mask held, taught by the
    unmasked model; `temperature`, `alpha` and `hidden_weight` as in [distil]."""

    sparsity: float = 0.5
    mask: Kind = "global"
    temperature: float = 2.0
    alpha: float = 0.7
    hidden_weight: float = 1.0
    epochs: int = 2
    learning_rate: float = 5e-5


def check_mask(config: MaskConfig) -> None:
    """InputError for a value that cannot work."""
    check_distil(_recovery(config), "mask")
    if config.mask not in KINDS:
        raise InputError(f"mask.mask = {config.mask!r}: must be one of {', '.join(KINDS)}")
    if not 0 < config.sparsity < 1:
        raise InputError(f"mask.sparsity = {config.sparsity}: must be a share above 0 and below 1")
    if config.mask == "2:4" and config.sparsity != 0.5:
        raise InputError(f"mask.sparsity = {config.sparsity}: a 2:4 mask is half empty; take 0.5")


def mask_weights(
    teacher: Checkpoint, dataset: Dataset, out: Path, config: MaskConfig | None = None
) -> Checkpoint:
    """A checkpoint at `out`: `teacher` with `config.sparsity` of its encoder weights 0, recovered.

    `from_pretrained` opens it. metrics["mask"] says that it is a mask, what share is 0, and the bytes of the
    weights' file before and after, as they are and gzipped. Killed and called again, it goes on from the last
    resume point. Raises InputError for an architecture, a value or data that cannot serve.
    """
    config = config or MaskConfig()
    check_mask(config)
    check_splits(dataset)
    if teacher.labels != dataset.label_names:
        raise InputError("mask: checkpoint and data have different labels; take the data it was made from")
    import transformers
    from accelerate import PartialState

    from trainers.fit import fit
    from trainers.model import open_model

    transformers.set_seed(config.seed)
    model = open_model(teacher.path)
    matrices = prunable(model, teacher.path, config.mask)
    train, validation, pad_id, loss = _lesson(teacher, dataset, config)
    job = {"config": asdict(config), "data": dataset.digest, "teacher": teacher.digest}
    scores_at = work_folder(out.with_name(f"{out.name}.scores"))
    if config.mask == "movement":
        found = _by_movement(model, matrices, train, validation, pad_id, loss, config, scores_at, job)
    else:
        found = masks_of({name: module.weight for name, module in matrices.items()}, config)
    with held(matrices, found):
        figures = fit(model, train, validation, pad_id, loss, config, work_folder(out), job)
    step = {"step": "mask", "config": asdict(config), "parent": teacher.digest, "teacher": teacher.digest}
    lineage = [*teacher.meta["lineage"], step]
    made = write_checkpoint(model, teacher.path, dataset, config, figures, lineage, out)
    state = PartialState()
    if state.is_main_process:
        shutil.rmtree(scores_at, ignore_errors=True)
        about = _about(teacher, made, model, matrices, config)
        made = seal(out, {**made.meta, "metrics": {**made.meta["metrics"], "mask": about}})
    state.wait_for_everyone()
    return made


def prunable(model: Any, where: object, kind: Kind = "global") -> dict[str, Any]:
    """The Linear modules of the encoder layers by path. InputError for a width that a 2:4 mask cannot cut."""
    import torch

    family = family_of(model, where)
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(family.layers + ".")
    }
    for name, module in found.items():
        if kind == "2:4" and module.in_features % 4:
            raise InputError(
                f"{where}: {name} has rows of {module.in_features}, no multiple of 4; take --mask layer"
            )
    return found


def masks_of(scores: "dict[str, torch.Tensor]", config: MaskConfig) -> "dict[str, torch.Tensor]":
    """Bool masks (out, in), True where a weight stays, from weights or scores of the same shapes.

    global ranks magnitudes over all matrices, layer and 2:4 within each one, movement ranks signed scores
    within each one (so that matrices with larger gradients do not win).
    """
    import torch

    if config.mask == "2:4":
        return {name: two_of_four(one.detach()) for name, one in scores.items()}
    if config.mask == "global":
        flat = torch.cat([one.detach().abs().flatten() for one in scores.values()])
        parts = _top(flat, config.sparsity).split([one.numel() for one in scores.values()])
        return {name: part.view(one.shape) for (name, one), part in zip(scores.items(), parts, strict=True)}
    ranked = {
        name: one.detach() if config.mask == "movement" else one.detach().abs()
        for name, one in scores.items()
    }
    return {name: _top(one.flatten(), config.sparsity).view(one.shape) for name, one in ranked.items()}


def _top(scores: "torch.Tensor", sparsity: float) -> "torch.Tensor":
    """True for all but the round(sparsity * n) lowest of scores (n,)."""
    import torch

    keep = torch.ones_like(scores, dtype=torch.bool)
    lowest = scores.topk(round(sparsity * len(scores)), largest=False).indices
    keep[lowest] = False
    return keep


def two_of_four(weight: "torch.Tensor") -> "torch.Tensor":
    """True for the two largest of every four weights along a row (Mishra et al. 2021, arXiv 2104.08378)."""
    import torch

    groups = weight.abs().view(-1, 4)
    keep = torch.zeros_like(groups, dtype=torch.bool)
    keep.scatter_(1, groups.topk(2, dim=1).indices, True)
    return keep.view(weight.shape)


@contextmanager
def held(matrices: dict[str, Any], masks: "dict[str, torch.Tensor]") -> Iterator[None]:
    """Weights times mask in every forward pass: no step of training fills the gaps. Baked in at the end."""
    from torch.nn.utils import prune

    for name, module in matrices.items():
        prune.custom_from_mask(module, "weight", masks[name])
    try:
        yield
    finally:
        for module in matrices.values():
            prune.remove(module, "weight")


def _by_movement(
    model: Any, matrices: dict[str, Any], train: "Rows", validation: "Rows", pad_id: int, loss: "Loss",
    config: MaskConfig, work: Path, job: Any,
) -> "dict[str, torch.Tensor]":  # fmt: skip
    """Train for one epoch while the mask grows by the scores, and return the mask of the last scores.

    Hard movement pruning (Sanh et al. 2020, arXiv 2005.07683): the score of a weight is the sum over the
    steps of -weight * gradient of the masked weight, taken straight through the mask, so that a masked weight
    can come back; the sparsity grows with a cubic schedule over the first two thirds of the steps.
    """
    import math

    from torch.nn.utils import parametrize

    from trainers.fit import fit

    shared = {one.name: getattr(config, one.name) for one in fields(TrainConfig)}
    once = TrainConfig(**{**shared, "epochs": 1})
    steps = math.ceil(len(train) / config.batch_size)
    moving = _moving()
    for module in matrices.values():
        parametrize.register_parametrization(module, "weight", moving(module.weight))

    def gates() -> dict[str, Any]:
        return {name: module.parametrizations.weight[0] for name, module in matrices.items()}

    def growing(model: Any, batch: Any) -> Any:
        if model.training:
            turn = int(next(iter(gates().values())).turn)
            share = config.sparsity * (1 - (1 - min(1.0, turn / (steps * 2 / 3))) ** 3)
            for gate in gates().values():
                gate.turn += 1
                if turn % 10 == 0 or turn == steps - 1:
                    gate.keep.copy_(_top(gate.scores.flatten(), share).view(gate.keep.shape))
        return loss(model, batch)

    fit(model, train, validation, pad_id, growing, once, work, {**job, "phase": "scores"})
    found = masks_of({name: gate.scores for name, gate in gates().items()}, config)
    for module in matrices.values():  # the weights behind the mask stay, not the masked ones
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    return found


def _moving() -> Any:
    """The module that stands before a weight and learns its scores."""
    import torch

    class Moving(torch.nn.Module):
        scores: torch.Tensor
        keep: torch.Tensor
        turn: torch.Tensor

        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("scores", torch.zeros_like(weight))
            self.register_buffer("keep", torch.ones_like(weight, dtype=torch.bool))
            self.register_buffer("turn", torch.zeros((), dtype=torch.long))

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            masked = weight * self.keep
            if masked.requires_grad:
                masked.register_hook(lambda grad: self.learn(weight.detach(), grad))
            return masked

        def learn(self, weight: torch.Tensor, grad: torch.Tensor) -> None:
            self.scores.sub_(weight * grad)

    return Moving


def _recovery(config: MaskConfig) -> DistilConfig:
    shared = {one.name for one in fields(DistilConfig)} & {one.name for one in fields(MaskConfig)}
    return DistilConfig(**{name: getattr(config, name) for name in shared})


def _lesson(teacher: Checkpoint, dataset: Dataset, config: MaskConfig) -> "tuple[Rows, Rows, int, Loss]":
    """Train rows with the unmasked model's answers, validation rows, the padding id, and the loss."""
    from trainers.distil_loss import distil_loss
    from trainers.evaluate import predict_model
    from trainers.fit import choose_precision, rows_of
    from trainers.model import open_model, open_tokenizer
    from trainers.tasks import task_of

    model, tokenizer = open_model(teacher.path), open_tokenizer(teacher.path, config.max_tokens)
    depth = len(layers_of(model, family_of(model, teacher.path)))
    layers = list(range(1, depth + 1)) if config.hidden_weight else None
    train, precision = dataset.splits["train"], choose_precision(config.precision)
    logits, states = predict_model(model, tokenizer, train.texts, layers=layers, precision=precision)
    answers = {"teacher_logits": logits} | ({} if states is None else {"teacher_states": states})
    weights = dataset.source.get("prepared", {}).get("class_weights")
    rows = rows_of(train, tokenizer, answers), rows_of(dataset.splits["validation"], tokenizer)
    return *rows, tokenizer.pad_id, distil_loss(_recovery(config), task_of(teacher.task), weights)


def _about(
    teacher: Checkpoint, made: Checkpoint, model: Any, matrices: dict[str, Any], config: MaskConfig
) -> dict[str, Any]:
    zeros = sum(int((module.weight == 0).sum()) for module in matrices.values())
    weights = sum(module.weight.numel() for module in matrices.values())
    if config.mask == "2:4" and not all(is_two_of_four(module.weight) for module in matrices.values()):
        raise AssertionError("a group of four weights holds more than two")  # our fault, never the user's
    return {
        "is": "a mask: same file size, same speed; only an archive of it is smaller",
        "kind": config.mask,
        "zeros": zeros / weights,
        "of_all": zeros / sum(value.numel() for value in model.parameters()),
        "bytes": {"before": file_bytes(teacher.path), "after": file_bytes(made.path)},
        "gzip_bytes": {"before": gzip_bytes(teacher.path), "after": gzip_bytes(made.path)},
    }


def is_two_of_four(weight: "torch.Tensor") -> bool:
    """Whether every four weights along a row hold at most two that are not 0."""
    return bool(((weight != 0).view(-1, 4).sum(1) <= 2).all())


def file_bytes(folder: Path) -> int:
    """Bytes of the checkpoint's safetensors files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def gzip_bytes(folder: Path) -> int:
    """Bytes of the same files through gzip -9."""

    class _Count:
        total = 0

        def write(self, data: bytes) -> int:
            self.total += len(data)
            return len(data)

    count = _Count()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=count, mtime=0) as stream:  # type: ignore[call-overload]
        for file in sorted(folder.glob("*.safetensors")):
            with file.open("rb") as source:
                shutil.copyfileobj(source, stream)
    return count.total
