"""What a student is taught: the teacher's logits, its [CLS] states, its hidden states, its attention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from trainers.distil import DistilConfig
    from trainers.fit import Batch, Loss
    from trainers.tasks import Task

UNLABELLED = -100


def distil_loss(
    config: "DistilConfig",
    task: "Task",
    weights: list[float] | None = None,
    teacher: Any = None,
    layers: Sequence[int] = (),
    width: Sequence[int] | None = None,
) -> "Loss":
    """The loss of DistilConfig; on rows without a teacher's answers (validation) plain cross entropy.

    `teacher` answers anew for each batch where the task decides by token, or where states or attention maps
    of all tokens are compared; `layers` are the teacher's that stand for the student's, counted from 1, and
    `width` the dimensions of the teacher's hidden states that the student keeps (None: all).
    """
    import torch

    from trainers.fit import inputs_of

    weight = torch.tensor(weights) if weights else None
    tokens = config.state_weight > 0 or config.attention_weight > 0

    def loss(model: Any, batch: "Batch") -> tuple[torch.Tensor, torch.Tensor]:
        taught = "teacher_logits" in batch or (task.by_token and model.training)
        states = taught and ("teacher_states" in batch or (task.by_token and config.hidden_weight > 0))
        want = {"output_hidden_states": states or (taught and config.state_weight > 0)}
        if taught and config.attention_weight > 0:
            want["output_attentions"] = True
        output = model(**inputs_of(batch), **want)
        answer = task.answer(output)
        hard = hard_loss(task.decisions(answer), batch["labels"].flatten(), weight)
        if not taught:
            return hard, answer
        told = _told(task, teacher, batch, config, states, layers, width)
        soft = soft_loss(task.decisions(answer), told.logits, config.temperature)
        total = config.alpha * config.temperature**2 * soft + (1 - config.alpha) * hard
        if states:
            total = total + config.hidden_weight * cls_loss(output.hidden_states, told.states)
        if tokens:
            total = total + token_losses(config, output, told.output, layers, width,
                                         batch["attention_mask"])  # fmt: skip
        return total, answer

    return loss


@dataclass(frozen=True)
class _Told:
    """A teacher's answer to a batch: decisions (n, choices), [CLS] states (rows, layers, d), all of it."""

    logits: "torch.Tensor"
    states: Any
    output: Any


def _told(
    task: "Task", teacher: Any, batch: "Batch", config: "DistilConfig", states: bool, layers: Sequence[int],
    width: Sequence[int] | None,
) -> _Told:  # fmt: skip
    """What lies in the batch already, and the rest from the teacher itself."""
    import torch

    output: Any = None if teacher is None else _answer(teacher, batch, config, states)
    if not task.by_token:
        return _Told(batch["teacher_logits"], batch.get("teacher_states"), output)
    cls = None
    if states:
        cls = torch.stack([_narrow(output.hidden_states[layer], width)[:, 0] for layer in layers], 1).float()
    return _Told(task.decisions(task.answer(output)), cls, output)


def hard_loss(
    logits: "torch.Tensor", labels: "torch.Tensor", weight: "torch.Tensor | None"
) -> "torch.Tensor":
    """Mean cross entropy of the labelled rows; 0 where a batch has none."""
    from torch.nn import functional as F

    if not (labels != UNLABELLED).any():
        return logits.sum() * 0.0
    weight = None if weight is None else weight.to(logits.device)
    return F.cross_entropy(logits, labels, weight, ignore_index=UNLABELLED)


def soft_loss(logits: "torch.Tensor", teacher: "torch.Tensor", heat: float) -> "torch.Tensor":
    """KL(teacher || student) at temperature `heat`, a mean over rows (Hinton et al., arXiv 1503.02531)."""
    from torch.nn import functional as F

    wanted = F.log_softmax(teacher / heat, -1)
    return F.kl_div(F.log_softmax(logits / heat, -1), wanted, reduction="batchmean", log_target=True)


def cls_loss(states: "Sequence[torch.Tensor]", teacher: "torch.Tensor") -> "torch.Tensor":
    """Squared distance of the normalised [CLS] states of all layers (Sun et al. 2019, arXiv 1908.09355)."""
    import torch
    from torch.nn import functional as F

    cls = torch.stack([state[:, 0] for state in states[1:]], 1).float()
    far = F.normalize(cls, dim=-1) - F.normalize(teacher, dim=-1)
    return far.square().sum(-1).mean()


def _answer(teacher: Any, batch: "Batch", config: "DistilConfig", states: bool) -> Any:
    import torch

    from trainers.fit import inputs_of

    inputs = inputs_of(batch)
    with torch.no_grad():
        return teacher.to(inputs["input_ids"].device)(
            **inputs,
            output_hidden_states=states or config.state_weight > 0,
            output_attentions=config.attention_weight > 0,
        )


def token_losses(
    config: "DistilConfig",
    student: Any,
    teacher: Any,
    layers: Sequence[int],
    width: Sequence[int] | None,
    mask: "torch.Tensor",
) -> "torch.Tensor":
    """Layer by layer, over the tokens of `mask` (TinyBERT, Jiao et al. 2020, arXiv 1909.10351)."""
    total: Any = 0.0
    if config.state_weight > 0:
        pairs = zip(student.hidden_states, [0, *layers], strict=True)
        total = total + config.state_weight * _mean(
            lambda mine, theirs: state_loss(mine, theirs, mask),
            [(state, _narrow(teacher.hidden_states[layer], width)) for state, layer in pairs],
        )
    if config.attention_weight > 0:
        pairs = zip(student.attentions, layers, strict=True)
        total = total + config.attention_weight * _mean(
            lambda mine, theirs: attention_loss(mine, theirs, mask),
            [(maps, teacher.attentions[layer - 1]) for maps, layer in pairs],
        )
    return total


def _mean(loss: "Callable[..., torch.Tensor]", pairs: "list[tuple[Any, Any]]") -> "torch.Tensor":
    import torch

    return torch.stack([loss(mine, theirs) for mine, theirs in pairs]).mean()


def _narrow(states: "torch.Tensor", width: Sequence[int] | None) -> "torch.Tensor":
    return states if width is None else states[..., list(width)]


def state_loss(mine: "torch.Tensor", theirs: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """Squared distance of normalised hidden states (B, L, d), a mean over the tokens of `mask` (B, L)."""
    from torch.nn import functional as F

    far = F.normalize(mine.float(), dim=-1) - F.normalize(theirs.float(), dim=-1)
    return (far.square().sum(-1) * mask).sum() / mask.sum()


def attention_loss(mine: "torch.Tensor", theirs: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """KL(teacher || student) of attention maps (B, heads, L, L), a mean over heads and the tokens of `mask`.

    As MiniLM compares them (Wang et al. 2020, arXiv 2002.10957). Where the heads are not equally many, their
    mean is compared.
    """
    if mine.shape[1] != theirs.shape[1]:
        mine, theirs = mine.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
    mine, theirs = mine.float().clamp_min(1e-8), theirs.float().clamp_min(1e-8)
    apart = (theirs * (theirs.log() - mine.log())).sum(-1)
    return (apart * mask[:, None]).sum() / (mask.sum() * mine.shape[1])
