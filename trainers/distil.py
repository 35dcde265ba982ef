"""Distil a teacher into a student: fewer layers, narrower ones, or a shape that was pruned before."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.data import Dataset, Split, load_texts
from trainers.distil_loss import UNLABELLED, distil_loss
from trainers.files import sha256_file
from trainers.finetune import TrainConfig, check_config, check_splits, work_folder
from trainers.prepare import new_texts
from trainers.reader import check_reader
from trainers.shape import Kept, cut, family_of, head_size, layers_of, magnitudes, strongest, whole
from trainers.squad import QuestionSet

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class DistilConfig(TrainConfig):
    """`layers` the student keeps, evenly spaced, and its `hidden_size` and `intermediate_size` (as they are,
    where left out; the strongest dimensions and neurons stay). Loss = alpha T^2 KL(teacher || student at
    temperature T) + (1 - alpha) cross entropy + hidden_weight * distance of the normalised [CLS] states
    + state_weight * distance of all hidden states + attention_weight * KL of the attention maps; the last two
    need the teacher's own vocabulary. `unlabelled`: a hub id or file whose texts (at most `unlabelled_rows`)
    the teacher labels in addition."""

    layers: int = 3
    hidden_size: int | None = None
    intermediate_size: int | None = None
    temperature: float = 2.0
    alpha: float = 0.7
    hidden_weight: float = 1.0
    state_weight: float = 0.0
    attention_weight: float = 0.0
    unlabelled: str | None = None
    unlabelled_rows: int = 20_000
    epochs: int = 4
    learning_rate: float = 2e-4


def distil(
    teacher: Checkpoint, start: Checkpoint, dataset: Dataset | QuestionSet, out: Path,
    config: DistilConfig | None = None,
) -> Checkpoint:  # fmt: skip
    """A student at `out`, cut out of `start` and taught by `teacher` on `dataset`.

    A classifier's `start` may have another vocabulary than the teacher: each reads the text with its own
    tokenizer, and logits and [CLS] states need no alignment of tokens. Its teacher answers once a row; the
    answers are kept beside `out` and used again by other students of the same teacher on the same rows. A
    reader's teacher reads along, batch by batch, and must have the same vocabulary.
    """
    config = config or DistilConfig()
    _check(config, teacher, start, dataset)
    import transformers

    from trainers.tasks import task_of

    transformers.set_seed(config.seed)
    student, kept = student_from(start, config.layers, config.hidden_size, config.intermediate_size)
    figures = teach(student, kept, teacher, start, dataset, out, config)
    figures["kept_layers"] = kept.layers
    step = {"step": "distil", "config": asdict(config), "parent": start.digest, "teacher": teacher.digest}
    lineage = [*start.meta["lineage"], step]
    made: Checkpoint = task_of(start.task).write(student, start.path, dataset, config, figures, lineage, out)
    return made


def teach(
    student: Any, kept: Kept, teacher: Checkpoint, start: Checkpoint, dataset: Dataset | QuestionSet,
    out: Path, config: DistilConfig, more: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Train `student` (`kept` of `start`) in place to its best epoch, taught by `teacher`; gives figures.

    Resume points lie beside `out`; `more` is what else makes the run, so that no other run takes them for its
    own.
    """
    from trainers.fit import fit
    from trainers.model import open_tokenizer
    from trainers.tasks import task_of

    task = task_of(start.task)
    guide = _Guide.of(teacher, start, student, kept, config)
    tokenizer = open_tokenizer(start.path, config.max_tokens)
    job = {"config": asdict(config), "data": dataset.digest, "more": more}
    job |= {"teacher": teacher.digest, "start": start.digest}
    if isinstance(dataset, QuestionSet):
        rows, weights = task.rows(dataset.splits["train"], tokenizer), None
    else:
        train = _with_unlabelled(dataset, config)
        job["texts"] = _digest(train.texts)
        rows = task.rows(train, tokenizer)
        rows.extra |= _teacher_answers(teacher, train.texts, guide, config.precision, out)
        weights = dataset.source.get("prepared", {}).get("class_weights")
    validation = task.rows(dataset.splits["validation"], tokenizer)
    loss = distil_loss(config, task, weights, guide.model, guide.layers, guide.width)
    work = work_folder(out)
    return fit(student, rows, validation, tokenizer.pad_id, loss, config, work, job, task.figures)


def check_distil(config: DistilConfig, section: str = "distil") -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    check_config(config, section)
    if config.layers < 1 or config.temperature <= 0 or not 0 <= config.alpha <= 1:
        raise InputError(f"{section}: layers must be 1 or more, temperature above 0, alpha 0 to 1")
    if min(config.hidden_weight, config.state_weight, config.attention_weight) < 0:
        raise InputError(f"{section}: hidden_weight, state_weight and attention_weight must not be below 0")
    for key in ("hidden_size", "intermediate_size", "unlabelled_rows"):
        value = getattr(config, key)
        if value is not None and value < 1:
            raise InputError(f"{section}.{key} = {value}: must be 1 or more")


def _check(
    config: DistilConfig, teacher: Checkpoint, start: Checkpoint, dataset: Dataset | QuestionSet
) -> None:
    check_distil(config)
    check_lesson(config, teacher, start, dataset)


def check_lesson(
    config: TrainConfig, teacher: Checkpoint, start: Checkpoint, dataset: Dataset | QuestionSet,
    section: str = "distil",
) -> None:  # fmt: skip
    """InputError where `teacher` cannot teach `start` on `dataset` as `config` says."""
    names = list(dataset.label_names)
    if not teacher.labels == start.labels == names or teacher.task != start.task:
        raise InputError(
            f"{section}: teacher, start and data have different labels; make them from the same data"
        )
    if isinstance(dataset, QuestionSet):
        check_reader(dataset, config, section)
        if getattr(config, "unlabelled", None) is not None:
            raise InputError(f"{section}.unlabelled: a reader learns from questions only; leave it out")
        if not _same_tokens(teacher, start):
            raise InputError(f"{section}: start must have the teacher's vocabulary; take another start")
        return
    check_splits(dataset)
    by_token = getattr(config, "state_weight", 0) or getattr(config, "attention_weight", 0)
    if by_token and not _same_tokens(teacher, start):
        raise InputError(
            f"{section}: state_weight and attention_weight compare token by token, so start must have the "
            "teacher's vocabulary; set both to 0 or trim the vocabulary afterwards"
        )


def _same_tokens(teacher: Checkpoint, start: Checkpoint) -> bool:
    files = [sha256_file(one.path / "tokenizer.json") for one in (teacher, start)]
    return files[0] == files[1]


def student_from(
    start: Checkpoint, layers: int, hidden_size: int | None = None, intermediate_size: int | None = None
) -> tuple[Any, Kept]:
    """A model with `layers` evenly spaced layers of `start`, of the given width; and what was kept.

    Dimensions, heads and neurons are those with the largest weights. InputError as it says.
    """
    from trainers.tasks import task_of

    model = task_of(start.task).open(start.path)
    family = family_of(model, start.path)
    everything = whole(model, family)
    if layers > len(layers_of(model, family)):
        have = len(layers_of(model, family))
        raise InputError(f"distil.layers = {layers}: {start.path.name} has {have}; take fewer")
    kept = evenly_spaced(layers, len(everything.layers))
    wanted = Kept(
        kept,
        [everything.heads[layer] for layer in kept],
        [everything.neurons[layer] for layer in kept],
        everything.width,
    )
    if hidden_size is not None or intermediate_size is not None:
        wanted = _narrower(model, wanted, hidden_size, intermediate_size, start.path.name)
    return cut(model, wanted, start.path), wanted


def _narrower(model: Any, kept: Kept, hidden: int | None, neurons: int | None, name: str) -> Kept:
    family = family_of(model, name)
    by_head, by_neuron, by_width = magnitudes(model, family)
    hidden, neurons = hidden or len(kept.width), neurons or len(kept.neurons[0])
    if hidden > len(kept.width) or neurons > len(kept.neurons[0]):
        raise InputError(
            f"distil: {name} has hidden_size {len(kept.width)} and intermediate_size "
            f"{len(kept.neurons[0])}; take no more than that"
        )
    heads = kept.heads
    if hidden < len(kept.width):
        count = hidden // head_size(model, family)
        if any(len(there) < count for there in heads):
            raise InputError(f"distil.hidden_size = {hidden}: {name} has lost too many heads; leave it out")
        heads = [strongest(by_head[layer], count) for layer in kept.layers] if count else [[]]
    return Kept(
        kept.layers,
        heads,
        [strongest(by_neuron[layer], neurons) for layer in kept.layers],
        strongest(by_width, hidden),
    )


def evenly_spaced(chosen: int, total: int) -> list[int]:
    """`chosen` of `range(total)`, first and last among them; for one, the last."""
    if chosen == 1:
        return [total - 1]
    return [i * (total - 1) // (chosen - 1) for i in range(chosen)]


@dataclass(frozen=True)
class _Guide:
    """How the teacher is compared: its layers that stand for the student's (from 1; none where states are not
    compared), the dimensions of its states that the student keeps, and the model itself where it answers anew
    for each batch."""

    layers: list[int]
    width: list[int] | None
    model: Any

    @classmethod
    def of(
        cls, teacher: Checkpoint, start: Checkpoint, student: Any, kept: Kept, config: DistilConfig
    ) -> "_Guide":
        from trainers.tasks import task_of

        task = task_of(teacher.task)
        if not (config.hidden_weight or config.state_weight or config.attention_weight):
            return cls([], None, task.open(teacher.path).eval() if task.by_token else None)
        from transformers import AutoConfig

        model = task.open(teacher.path)
        family, small = family_of(model, teacher.path), family_of(student, start.path)
        deep, depth = len(layers_of(model, family)), len(layers_of(student, small))
        wide = getattr(model.config, family.width)
        begun = getattr(AutoConfig.from_pretrained(start.path, local_files_only=True), small.width)
        if deep < depth:
            raise InputError("distil: the teacher has fewer layers than the student; set hidden_weight to 0")
        if begun != wide:
            raise InputError("distil: teacher and start differ in hidden size; set hidden_weight to 0")
        if config.attention_weight:
            model.set_attn_implementation("eager")  # the fused kernels do not give their maps
            student.set_attn_implementation("eager")
        online = task.by_token or config.state_weight > 0 or config.attention_weight > 0
        layers = [layer + 1 for layer in evenly_spaced(depth, deep)]
        return cls(layers, kept.width if len(kept.width) < wide else None, model.eval() if online else None)


def _with_unlabelled(dataset: Dataset, config: DistilConfig) -> Split:
    """The train rows, and behind them the texts without labels that are not in the data set already."""
    train = dataset.splits["train"]
    if config.unlabelled is None:
        return train
    more = new_texts(dataset, load_texts(config.unlabelled), config.unlabelled_rows, config.seed)
    return Split(train.texts + more, train.labels + [UNLABELLED] * len(more))


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


def _teacher_answers(
    teacher: Checkpoint, texts: list[str], guide: _Guide, precision: str, out: Path
) -> "dict[str, np.ndarray]":
    """The teacher's logits and [CLS] states for every train row."""
    import numpy as np
    from accelerate import PartialState

    key = f"{teacher.digest} {_digest(texts)} {guide.layers} {guide.width} {precision}"
    name = f".answers-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"
    file, state = out.with_name(name), PartialState()
    if state.is_main_process and not file.is_file():
        _ask(teacher, texts, guide, precision, file)
    state.wait_for_everyone()
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _ask(teacher: Checkpoint, texts: list[str], guide: _Guide, precision: str, file: Path) -> None:
    import os

    import numpy as np

    from trainers.evaluate import predict_model
    from trainers.fit import choose_precision
    from trainers.model import open_model, open_tokenizer

    model = open_model(teacher.path)
    tokenizer = open_tokenizer(teacher.path, teacher.limits["max_tokens"])
    low = choose_precision(precision)
    logits, states = predict_model(model, tokenizer, texts, layers=guide.layers or None, precision=low)
    arrays = {"teacher_logits": logits}
    if states is not None:
        arrays["teacher_states"] = states if guide.width is None else states[..., guide.width]
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".answers.tmp-{os.getpid()}.npz")
    np.savez(beside, **arrays)  # type: ignore[arg-type]
    beside.replace(file)
