"""Fine-tune a base model into a reader on questions in SQuAD's shape, and measure it."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtimes.errors import InputError
from runtimes.files import writing
from runtimes.load import load
from runtimes.tasks import answer
from runtimes.text import Tokenizer, Window
from trainers.checkpoint import Checkpoint, open_checkpoint, seal
from trainers.finetune import MAX_BATCH, TrainConfig, check_config, parents, work_folder
from trainers.sources import find
from trainers.spans import best_threshold, calibrate, exact_match, f1, span_report
from trainers.squad import Question, QuestionSet

if TYPE_CHECKING:
    from trainers.fit import Rows

TASK = "question-answering"
MAX_CHARS = 200_000
# `max_tokens` is the length of a window, question and passage together; `patience` counts epochs without more
# windows whose answer is `exact`ly right on validation.
DEFAULTS = TrainConfig(epochs=2, batch_size=16, max_tokens=256, metric="exact")


def train_reader(
    questions: QuestionSet, base: Path | str, out: Path, config: TrainConfig | None = None
) -> Checkpoint:
    """A checkpoint at `out` that answers from passages, trained from `base` on the train questions.

    The best epoch, the calibration of the confidence and the threshold under which nothing is answered come
    from the validation questions; metrics.test from the test ones. Killed and called again, it goes on.
    """
    config = config or DEFAULTS
    check_config(config)
    check_reader(questions, config)
    import transformers

    from trainers.fit import fit
    from trainers.model import check_max_tokens, open_reader, open_tokenizer

    source = find(str(base), "model")
    transformers.set_seed(config.seed)
    model = open_reader(source.path)
    check_max_tokens(model, config.max_tokens)
    tokenizer = open_tokenizer(source.path, config.max_tokens)
    train, validation = (window_rows(questions.splits[name], tokenizer) for name in ("train", "validation"))
    parent, lineage = parents(source)
    job = {"config": asdict(config), "data": questions.digest, "base": parent}
    figures = fit(
        model, train, validation, tokenizer.pad_id, span_loss, config, work_folder(out), job, exact_windows
    )
    step = {"step": "finetune", "config": asdict(config), "parent": parent}
    return write_reader(model, source.path, questions, config, figures, [*lineage, step], out)


def check_reader(questions: QuestionSet, config: TrainConfig, section: str = "train") -> None:
    """InputError for splits that are missing, or another metric than readers have."""
    for name in ("train", "validation", "test"):
        if not questions.splits.get(name):
            raise InputError(f"{questions.name}: no {name} questions; hold some out by title")
    if config.metric != "exact":
        raise InputError(f"{section}.metric = {config.metric!r}: a reader's is exact")


def window_rows(questions: Sequence[Question], tokenizer: Tokenizer) -> "Rows":
    """Every window of every question, with the places of its answer's first and last token.

    (0, 0), which is [CLS], where the window does not hold the whole answer. The first right answer counts.
    """
    from trainers.fit import Rows

    ids, types, labels = [], [], []
    for one in questions:
        for window in tokenizer.windows(
            one.question.strip(), one.context, answer.STRIDE, answer.MAX_QUESTION
        ):
            ids.append(window.ids)
            types.append(window.types)
            labels.append(place(window, one))
    return Rows(ids, labels, types=types)


def place(window: Window, question: Question) -> tuple[int, int]:
    """Where the first right answer stands in a window: the numbers of its first and last token, or (0, 0)."""
    if not question.answers:
        return 0, 0
    start, text = question.answers[0]
    end = start + len(text)
    inside = window.spans[:, 0] >= 0
    first = np.flatnonzero(inside & (window.spans[:, 0] <= start) & (window.spans[:, 1] > start))
    last = np.flatnonzero(inside & (window.spans[:, 0] < end) & (window.spans[:, 1] >= end))
    return (int(first[0]), int(last[0])) if len(first) and len(last) else (0, 0)


def span_loss(model: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """Mean cross entropy of first and last token over all places of the window (Devlin et al. 2019)."""
    import torch
    from torch.nn import functional as F

    from trainers.fit import inputs_of

    output = model(**inputs_of(batch))
    logits = torch.stack([output.start_logits, output.end_logits], dim=-1).float()
    return F.cross_entropy(logits, batch["labels"]), logits


def exact_windows(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Share of windows whose first and last token are both right. (n, tokens, 2) and (n, 2)."""
    return {"exact": float((logits.argmax(axis=1) == labels).all(axis=1).mean())}


def write_reader(
    model: Any, tokenizer_from: Path, questions: QuestionSet, config: TrainConfig, figures: dict[str, Any],
    lineage: list[dict[str, Any]], out: Path,
) -> Checkpoint:  # fmt: skip
    """Save, seal, read validation and test with the saved model, calibrate, and seal again. The first process
    does it."""
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        _write(model, tokenizer_from, questions, config, figures, lineage, out)
        shutil.rmtree(work_folder(out), ignore_errors=True)
    state.wait_for_everyone()
    return open_checkpoint(out)


def _write(
    model: Any, tokenizer_from: Path, questions: QuestionSet, config: TrainConfig, figures: dict[str, Any],
    lineage: list[dict[str, Any]], out: Path,
) -> None:  # fmt: skip
    import torch

    from trainers.model import save_model

    splits = questions.splits
    with writing(out) as new:
        save_model(model, tokenizer_from, new, config.max_tokens)
        limits = {"max_tokens": config.max_tokens, "max_chars": MAX_CHARS, "max_batch": MAX_BATCH}
        data = {**questions.source, "questions": {name: len(rows) for name, rows in splits.items()}}
        meta = {"task": TASK, "labels": list(questions.label_names), "limits": limits, "metrics": {},
                "seed": config.seed, "lineage": lineage, "data": data}  # fmt: skip
        seal(new, meta)
        reader = load(new, threads=torch.get_num_threads())
        found = readings(reader, splits["validation"])
        calibration = calibration_of(found, splits["validation"])
        metrics = {"validation": report(found, splits["validation"], calibration["threshold"])}
        metrics["test"] = report(readings(reader, splits["test"]), splits["test"], calibration["threshold"])
        seal(new, {**meta, "metrics": {**metrics, "training": figures}, "calibration": calibration})


def readings(reader: Any, questions: Sequence[Question], block: int = 64) -> list[answer.Reading]:
    """What a reader on any engine finds for each question in its passage, whatever the threshold."""
    from tqdm import tqdm

    found: list[answer.Reading] = []
    with tqdm(total=len(questions), desc="read", unit="question", disable=None) as bar:
        for start in range(0, len(questions), block):
            asked = questions[start : start + block]
            found += reader.answers([(one.question, one.context) for one in asked])
            bar.update(len(asked))
    return found


def calibration_of(found: Sequence[answer.Reading], questions: Sequence[Question]) -> dict[str, float]:
    """{"scale", "shift", "threshold"}: the confidence's sigmoid, and the lead from which on to answer."""
    leads = [one.score for one in found]
    golds = [[text for _, text in one.answers] for one in questions]
    right = [bool(gold) and exact_match(one.text, gold) == 1 for one, gold in zip(found, golds, strict=True)]
    overlap = [f1(one.text, gold) if gold else 0.0 for one, gold in zip(found, golds, strict=True)]
    threshold = best_threshold(leads, overlap, [not gold for gold in golds])
    return {**calibrate(leads, right), "threshold": min(threshold, 1e9)}


def report(
    found: Sequence[answer.Reading], questions: Sequence[Question], threshold: float
) -> dict[str, Any]:
    """SQuAD's figures, with silence under the threshold; `always`: without one, where there is an answer."""
    golds = [[text for _, text in one.answers] for one in questions]
    said = [one.text if one.score >= threshold else "" for one in found]
    some = [row for row, gold in enumerate(golds) if gold]
    always = span_report([found[row].text for row in some], [golds[row] for row in some])
    return {**span_report(said, golds), "threshold": threshold, "always": always}
