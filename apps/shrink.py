"""Checkpoint + data → smaller checkpoint: vocabulary first, then pruning or a student."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from apps.rows import dataset_from, questions_from
from compress.importance import Measure
from compress.prune import PruneConfig, check_prune, prune
from compress.qat import QatConfig, check_qat, quantization_aware
from compress.vocabulary import VocabularyConfig, trim_vocabulary
from runtimes.bundle import NUMBERS
from runtimes.errors import InputError
from runtimes.files import require_replaceable
from trainers.adopt import open_or_adopt
from trainers.checkpoint import Checkpoint, open_checkpoint
from trainers.data import Dataset
from trainers.distil import DistilConfig, check_distil, distil
from trainers.finetune import relabel
from trainers.reader import TASK as READER
from trainers.squad import QuestionSet

_ANSWERS = ".answers-*.npz"


@dataclass(frozen=True)
class ShrinkConfig:
    """What to take away; each None stays as it is.

    `keep`, a share of the encoder's parameters, prunes heads and neurons (and, with `layers`, layers) by
    `importance`. Without it `layers`, `hidden_size` and `intermediate_size` shape a student, which is
    distilled on the texts of `unlabelled` too. `qat`, 2, 4 or 8, trains the result for so many bits a weight.
    """

    vocabulary: int | None = None
    keep: float | None = None
    layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    importance: Measure = "taylor"
    unlabelled: str | None = None
    qat: int | None = None
    epochs: int = 4
    seed: int = 0


def shrink(path: Path, data: str, out: Path, config: ShrinkConfig) -> dict[str, Any]:
    """Write the smaller checkpoint; return bytes and test accuracy before and after.

    `path` is a checkpoint, or any folder with a classifier that `from_pretrained` opens.

    Raises InputError where nothing is asked for, or what the steps raise.
    """
    _check(config)
    require_replaceable(out)
    with TemporaryDirectory(prefix="edgewise-") as folder:
        start = teacher = open_or_adopt(path, Path(folder))
        dataset = _dataset(data, teacher)
        steps = shrink_steps(teacher, dataset, config)
        before, cached = _about(teacher, dataset), set(out.parent.glob(_ANSWERS))
        for number, step in enumerate(steps, 1):
            start = step(start, out if number == len(steps) else Path(folder) / str(number))
        for left in set(out.parent.glob(_ANSWERS)) - cached:  # of use to a build, clutter here
            left.unlink()
        return {"before": before, "after": _about(open_checkpoint(out), dataset), "path": str(out)}


def _dataset(data: str, teacher: Checkpoint) -> Dataset | QuestionSet:
    if teacher.task == NUMBERS:
        raise InputError(
            f"{teacher.path}: a detector is made smaller by [student] and [slim] in its recipe, not here"
        )
    return questions_from(data) if teacher.task == READER else relabel(dataset_from(data), teacher.labels)


def _check(config: ShrinkConfig) -> None:
    shape = (config.layers, config.hidden_size, config.intermediate_size)
    if (config.vocabulary, config.keep, config.qat, *shape) == (None,) * 6:
        raise InputError("nothing to do: give --layers, --keep, --hidden, --vocabulary, --qat or several")
    if config.keep is not None and shape[1:] != (None, None):
        raise InputError("--keep prunes, --hidden and --intermediate shape a student; do one after the other")
    if config.unlabelled is not None and (config.keep is not None or shape == (None, None, None)):
        raise InputError("--unlabelled goes with a student: give --layers, --hidden or --intermediate")


Step = Callable[[Checkpoint, Path], Checkpoint]


def shrink_steps(teacher: Checkpoint, dataset: Dataset | QuestionSet, config: ShrinkConfig) -> list[Step]:
    """What makes the smaller checkpoint, each from the one before; checked before the first one starts."""
    steps: list[Step] = []
    shared: dict[str, Any] = {"epochs": config.epochs, "seed": config.seed}
    shared["max_tokens"] = teacher.limits["max_tokens"]
    if isinstance(dataset, QuestionSet):
        shared["metric"] = "exact"
    if config.vocabulary is not None:
        steps.append(_trimmed(dataset, VocabularyConfig(config.vocabulary)))
    if config.keep is not None:
        cut = PruneConfig(keep=config.keep, layers=config.layers, importance=config.importance, **shared)
        check_prune(cut)
        steps.append(lambda start, out: prune(teacher, start, dataset, out, cut))
    elif (config.layers, config.hidden_size, config.intermediate_size) != (None, None, None):
        student = DistilConfig(
            layers=config.layers or _depth(teacher),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            unlabelled=config.unlabelled,
            **shared,
        )
        check_distil(student)
        steps.append(lambda start, out: distil(teacher, start, dataset, out, student))
    if config.qat is not None:
        fine = QatConfig(bits=config.qat, **shared)
        check_qat(fine)
        steps.append(lambda start, out: quantization_aware(teacher, start, dataset, out, fine))
    return steps


def _trimmed(dataset: Dataset | QuestionSet, size: VocabularyConfig) -> Step:
    if isinstance(dataset, QuestionSet):
        raise InputError("--vocabulary: a reader meets words of any document; leave it out")
    texts = dataset.splits["train"].texts
    return lambda start, out: trim_vocabulary(start, texts, out, size)


def _depth(checkpoint: Checkpoint) -> int:
    from trainers.shape import family_of, layers_of
    from trainers.tasks import task_of

    model = task_of(checkpoint.task).open(checkpoint.path)
    return len(layers_of(model, family_of(model, checkpoint.path)))


def _about(checkpoint: Checkpoint, dataset: Dataset | QuestionSet) -> dict[str, Any]:
    """Bytes of the weights, and the metric on the test rows."""
    from runtimes.load import load
    from trainers.examples import examples

    size = sum(file.stat().st_size for file in checkpoint.path.glob("*.safetensors"))
    model, (inputs, truths) = load(checkpoint.path), examples(dataset.splits["test"])
    metric = model.metric(inputs, model.outputs(inputs), truths)
    return {"bytes": size, metric["name"]: metric["value"], "n": metric["n"]}
