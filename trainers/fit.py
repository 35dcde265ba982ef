"""The training loop that fine-tuning and distillation share: transformers' Trainer, resumable and repeatable.

An epoch's batches depend on the seed and the epoch alone, so that a run that was killed and goes on gives
the same weights as one that was not.
"""

import json
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional as F
from tqdm import tqdm
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from runtimes.errors import InputError
from runtimes.text import Tokenizer, pad
from trainers.data import Split
from trainers.files import read_json, write_json
from trainers.finetune import TrainConfig
from trainers.metrics import classification_report

Batch = dict[str, torch.Tensor]
# (model, batch) -> (mean loss, logits)
Loss = Callable[[Any, Batch], tuple[torch.Tensor, torch.Tensor]]
# (logits, labels) of the validation rows -> figures, `config.metric` among them
Figures = Callable[[np.ndarray, np.ndarray], dict[str, float]]


class Rows(torch.utils.data.Dataset):
    """Tokenized rows; `extra` holds arrays with one entry a row, such as a teacher's logits.

    `labels` has a number a row, or (a reader's) the places of the answer's first and last token; `types` are
    the token types of rows that are pairs.
    """

    def __init__(
        self, ids: list[list[int]], labels: Sequence[Any], extra: dict[str, np.ndarray] | None = None,
        types: list[list[int]] | None = None,
    ):  # fmt: skip
        self.ids, self.labels, self.extra, self.types = ids, labels, extra or {}, types

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        extra = {key: values[row] for key, values in self.extra.items()}
        types = None if self.types is None else self.types[row]
        return {"ids": self.ids[row], "label": self.labels[row], "extra": extra, "types": types}


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of all texts, in blocks so that memory stays bounded."""
    blocks = (texts[start : start + 4096] for start in range(0, len(texts), 4096))
    return [ids for block in blocks for ids in tokenizer.encode(block)]


def rows_of(split: Split, tokenizer: Tokenizer, extra: dict[str, np.ndarray] | None = None) -> Rows:
    return Rows(encode(tokenizer, split.texts), split.labels, extra)


def by_length(rows: Rows) -> Rows:
    """Rows ordered by length, for evaluation with little padding (order does not matter there)."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows.ids[i]), i))
    types = None if rows.types is None else [rows.types[i] for i in order]
    return Rows([rows.ids[i] for i in order], [rows.labels[i] for i in order], types=types)


def collate(pad_id: int, names: Sequence[str]) -> Callable[[list[dict[str, Any]]], Batch]:
    """Pad a batch to its own longest row (to a multiple of 8), with the inputs that the model knows."""

    def to_batch(rows: list[dict[str, Any]]) -> Batch:
        ids = [row["ids"] for row in rows]
        length = math.ceil(max(map(len, ids)) / 8) * 8
        types = [row["types"] for row in rows] if rows[0].get("types") else None
        arrays = {k: v for k, v in pad(ids, length, pad_id, types).items() if k in names}
        arrays["labels"] = np.asarray([row["label"] for row in rows], np.int64)
        for key in rows[0]["extra"]:
            arrays[key] = np.stack([row["extra"][key] for row in rows]).astype(np.float32)
        return {key: torch.from_numpy(value) for key, value in arrays.items()}

    return to_batch


class LengthGrouped(torch.utils.data.Sampler[int]):
    """Shuffled rows whose batches hold texts of like length; the order follows from seed and epoch alone."""

    def __init__(self, lengths: list[int], batch: int, seed: int):
        self.lengths, self.batch, self.seed, self.epoch = np.asarray(lengths), batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        block = self.batch * 32
        blocks = [order[i : i + block] for i in range(0, len(order), block)]
        ordered = np.concatenate([b[np.argsort(-self.lengths[b], kind="stable")] for b in blocks])
        whole = len(ordered) // self.batch
        batches = [ordered[i * self.batch : (i + 1) * self.batch] for i in random.permutation(whole)]
        return iter(np.concatenate([*batches, ordered[whole * self.batch :]]).tolist())


def cross_entropy(weights: list[float] | None) -> Loss:
    """Cross entropy, with class weights where there are any."""
    weight = torch.tensor(weights) if weights else None

    def loss(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(**inputs_of(batch)).logits.float()
        return F.cross_entropy(logits, batch["labels"], _on(weight, logits)), logits

    return loss


def _on(weight: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor | None:
    return None if weight is None else weight.to(logits.device)


def inputs_of(batch: Batch) -> Batch:
    """The part of a batch that the model takes."""
    return {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in batch}


def input_names(model: Any) -> list[str]:
    import inspect

    return list(inspect.signature(model.forward).parameters)


class _Trainer(transformers.Trainer):
    """Trainer with the project's loss and batch order."""

    loss: Loss
    sampler: LengthGrouped

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        value, logits = self.loss(model, inputs)
        return (value, {"logits": logits}) if return_outputs else value

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
        return self.sampler


class _Flow(transformers.TrainerCallback):
    """Epoch order, resume points, early stopping and progress."""

    def __init__(self, config: TrainConfig, sampler: LengthGrouped):
        self.config, self.sampler = config, sampler
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=None)
            self.bar.set_description("train")

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.sampler.epoch = int(state.epoch + 1e-6)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save = control.should_save or state.global_step % self.config.save_every == 0
        if self.bar is not None:
            self.bar.update(1)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if stale(state.log_history, self.config):
            control.should_training_stop = True
        self._tell(
            state, f"validation {self.config.metric} {kwargs['metrics']['eval_' + self.config.metric]:.4f}"
        )

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:
            self._tell(state, f"loss {kwargs['logs']['loss']:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def _tell(self, state: Any, words: str) -> None:
        if self.bar is None:
            return
        if self.bar.disable:  # not a terminal: a plain line
            print(f"step {state.global_step}/{state.max_steps} {words}", file=sys.stderr, flush=True)
        else:
            self.bar.set_postfix_str(words)


def stale(history: list[dict[str, Any]], config: TrainConfig) -> bool:
    """True where the last `patience` evaluations brought nothing better."""
    values = [entry[f"eval_{config.metric}"] for entry in history if f"eval_{config.metric}" in entry]
    if not config.patience or not values:
        return False
    return len(values) - 1 - int(np.argmax(values)) >= config.patience


def choose_precision(asked: str) -> str:
    """bf16 where it is faster: on GPUs that compute in it and CPUs with AMX; else fp16 on a GPU, else fp32.

    A CPU with AVX-512 bf16 alone was 1.5 times as slow in it as in fp32 (forward and backward, one thread).
    """
    if torch.cuda.is_available():
        return asked if asked != "auto" else ("bf16" if torch.cuda.is_bf16_supported() else "fp16")
    if asked == "fp16":
        raise InputError("train.precision = fp16: needs a GPU; take auto, bf16 or fp32")
    fast = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return asked if asked != "auto" else ("bf16" if fast else "fp32")


def fit(
    model: Any, train: Rows, validation: Rows, pad_id: int, loss: Loss, config: TrainConfig,
    work: Path, job: Any, figures: Figures | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train `model` in place to its best epoch on validation; gives figures of the run.

    The best epoch is the one with the highest `config.metric` of `figures` (a classifier's, where left out).

    `work` keeps the resume points; they are used again if `job` (what goes into the run) is the same.
    """
    precision = choose_precision(config.precision)
    told = figures or classified
    trainer = _make_trainer(model, train, validation, pad_id, loss, config, work, precision, told)
    if trainer.is_world_process_zero():
        same_job(work, job)
    trainer.accelerator.wait_for_everyone()
    last = _last_point(work)
    started, first = time.perf_counter(), 0
    if last and stale(_state(last)["log_history"], config):
        trainer.state = transformers.TrainerState.load_from_json(str(last / "trainer_state.json"))
        trainer._load_best_model()
    else:
        first = _state(last)["global_step"] if last else 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="mtime may not be reliable")
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    seconds, state = time.perf_counter() - started, trainer.state
    rows = (state.global_step - first) * trainer.args.world_size
    rows *= config.batch_size * config.gradient_accumulation
    return {
        "rows": len(train),
        "precision": precision,
        "steps": state.global_step,
        "best_step": state.best_global_step,
        "rows_per_second": round(rows / seconds, 1) if rows > 0 else None,
    }


def _make_trainer(
    model: Any, train: Rows, validation: Rows, pad_id: int, loss: Loss, config: TrainConfig,
    work: Path, precision: str, figures: Figures,
) -> _Trainer:  # fmt: skip
    gpu = torch.cuda.is_available()
    # Here transformers would find the precision of an earlier training of this process, and take it for ours.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no" if precision == "fp32" else precision
    steps = math.ceil(len(train) / config.batch_size / config.gradient_accumulation) * config.epochs
    args = transformers.TrainingArguments(
        output_dir=str(work), num_train_epochs=config.epochs, per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size * 2,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate, warmup_ratio=config.warmup, weight_decay=config.weight_decay,
        lr_scheduler_type="linear", seed=config.seed, data_seed=config.seed, bf16=precision == "bf16",
        fp16=precision == "fp16", use_cpu=not gpu, eval_strategy="epoch", save_strategy="epoch",
        save_total_limit=1, load_best_model_at_end=True, metric_for_best_model=config.metric,
        greater_is_better=True, logging_steps=math.ceil(steps / 20), report_to=[], disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=gpu, label_names=["labels"],
        ddp_find_unused_parameters=False,
    )  # fmt: skip

    sampler = LengthGrouped([len(ids) for ids in train.ids], config.batch_size, config.seed)
    trainer = _Trainer(
        model=model, args=args, train_dataset=train, eval_dataset=by_length(validation),
        data_collator=collate(pad_id, input_names(model)),
        compute_metrics=lambda answers: figures(answers.predictions, answers.label_ids),
        callbacks=[_Flow(config, sampler)],
    )  # fmt: skip
    trainer.loss, trainer.sampler = loss, sampler
    trainer.model_accepts_loss_kwargs = False  # our losses are means: let Trainer divide when it accumulates
    for callback in (PrinterCallback, ProgressCallback):  # they print on stdout
        trainer.remove_callback(callback)
    return trainer


def classified(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Figures of a classifier."""
    report = classification_report(logits, labels)
    return {"accuracy": report["accuracy"], "macro_f1": report["macro"]["f1"]}


def same_job(work: Path, job: Any) -> None:
    """Start afresh where the resume points are another run's; drop those whose writing was cut off."""
    note = work / "job.json"
    stated = json.loads(json.dumps(job))
    if work.is_dir() and (not note.is_file() or read_json(note) != stated):
        shutil.rmtree(work)
    if not note.is_file():
        write_json(note, stated)
    for point in work.glob("checkpoint-*"):
        try:
            _state(point)  # Trainer writes it last
        except (OSError, ValueError, KeyError):
            shutil.rmtree(point)


def _state(point: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((point / "trainer_state.json").read_text(encoding="utf-8"))
    return {"log_history": state["log_history"], "global_step": state["global_step"]}


def _last_point(work: Path) -> Path | None:
    points = sorted(work.glob("checkpoint-*"), key=lambda point: int(point.name.rsplit("-", 1)[1]))
    return points[-1] if points else None
