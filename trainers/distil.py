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
from trainers.finetune import TrainConfig, check_config, check_splits, work_folder, write_checkpoint
from trainers.prepare import new_texts
from trainers.shape import Kept, cut, family_of, head_size, layers_of, magnitudes, strongest, whole

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
    teacher: Checkpoint, start: Checkpoint, dataset: Dataset, out: Path, config: DistilConfig | None = None
) -> Checkpoint:
    """A student at `out`, cut out of `start` and taught by `teacher` on `dataset`.

    `start` may have another vocabulary than the teacher: each reads the text with its own tokenizer, and
    logits and [CLS] states need no alignment of tokens. The teacher answers once a row; its answers are kept
    beside `out` and used again by other students of the same teacher on the same rows.
    """
    config = config or DistilConfig()
    _check(config, teacher, start, dataset)
    import transformers

    transformers.set_seed(config.seed)
    student, kept = student_from(start, config.layers, config.hidden_size, config.intermediate_size)
    figures = teach(student, kept, teacher, start, dataset, out, config)
    figures["kept_layers"] = kept.layers
    step = {"step": "distil", "config": asdict(config), "parent": start.digest, "teacher": teacher.digest}
    lineage = [*start.meta["lineage"], step]
    return write_checkpoint(student, start.path, dataset, config, figures, lineage, out)


def teach(
    student: Any, kept: Kept, teacher: Checkpoint, start: Checkpoint, dataset: Dataset, out: Path,
    config: DistilConfig, more: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Train `student` (`kept` of `start`) in place to its best epoch, taught by `teacher`; gives figures.

    Resume points lie beside `out`; `more` is what else makes the run, so that no other run takes them for its
    own.
    """
    from trainers.fit import fit, rows_of
    from trainers.model import open_tokenizer

    guide = _Guide.of(teacher, start, student, kept, config)
    train = _with_unlabelled(dataset, config)
    job = {"config": asdict(config), "data": dataset.digest, "texts": _digest(train.texts), "more": more}
    job |= {"teacher": teacher.digest, "start": start.digest}
    answers = _teacher_answers(teacher, train.texts, guide, config.precision, out)
    tokenizer = open_tokenizer(start.path, config.max_tokens)
    rows = rows_of(train, tokenizer, answers)
    validation = rows_of(dataset.splits["validation"], tokenizer)
    weights = dataset.source.get("prepared", {}).get("class_weights")
    loss = distil_loss(config, weights, guide.model, guide.layers, guide.width)
    return fit(student, rows, validation, tokenizer.pad_id, loss, config, work_folder(out), job)


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


def _check(config: DistilConfig, teacher: Checkpoint, start: Checkpoint, dataset: Dataset) -> None:
    check_distil(config)
    check_splits(dataset)
    if not teacher.labels == start.labels == dataset.label_names:
        raise InputError(
            "distil: teacher, start and data have different labels; make them from the same data"
        )
    if config.state_weight or config.attention_weight:
        files = [sha256_file(one.path / "tokenizer.json") for one in (teacher, start)]
        if files[0] != files[1]:
            raise InputError(
                "distil: state_weight and attention_weight compare token by token, so start must have the "
                "teacher's vocabulary; set both to 0 or trim the vocabulary afterwards"
            )


def student_from(
    start: Checkpoint, layers: int, hidden_size: int | None = None, intermediate_size: int | None = None
) -> tuple[Any, Kept]:
    """A model with `layers` evenly spaced layers of `start`, of the given width; and what was kept.

    Dimensions, heads and neurons are those with the largest weights. InputError as it says.
    """
    from trainers.model import open_model

    model = open_model(start.path)
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
    """How the teacher is compared: its layers that stand for the student's (from 1), the dimensions of its
    states that the student keeps, and the model itself where it answers anew for each batch."""

    layers: list[int]
    width: list[int] | None
    model: Any

    @classmethod
    def of(
        cls, teacher: Checkpoint, start: Checkpoint, student: Any, kept: Kept, config: DistilConfig
    ) -> "_Guide":
        if not (config.hidden_weight or config.state_weight or config.attention_weight):
            return cls([], None, None)
        from transformers import AutoConfig

        from trainers.model import open_model

        model = open_model(teacher.path)
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
        online = config.state_weight > 0 or config.attention_weight > 0
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
