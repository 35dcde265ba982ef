"""What the training steps must know of a task: its head, its rows, what it decides, its checkpoint (torch).

Distillation, pruning and quantization-aware training are written once, over these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runtimes.errors import InputError
from runtimes.text import Tokenizer
from trainers import finetune, reader
from trainers.fit import Figures, Rows, classified, rows_of
from trainers.model import open_model, open_reader


@dataclass(frozen=True)
class Task:
    """`rows`: a split, tokenized. `answer`: what `figures` compares with the labels, of a model's output.
    `decisions`: the same as logits (n, choices), one row a choice; labels in the same order, flattened, are
    (n,). `by_token`: whether the choices are tokens, so that teacher and student must read the same ones."""

    open: Callable[[Path], Any]
    rows: Callable[[Any, Tokenizer], Rows]
    answer: Callable[[Any], torch.Tensor]
    decisions: Callable[[torch.Tensor], torch.Tensor]
    figures: Figures
    write: Callable[..., Any]
    by_token: bool


def task_of(name: str) -> Task:
    """Raises InputError for a task that is not trained here."""
    if name not in _TASKS:
        raise InputError(f"task {name!r} cannot be trained here; it must be {' or '.join(_TASKS)}")
    return _TASKS[name]


def _span_logits(output: Any) -> torch.Tensor:
    """(rows, tokens, 2)"""
    return torch.stack([output.start_logits, output.end_logits], dim=-1).float()


_TASKS = {
    finetune.TASK: Task(
        open=open_model,
        rows=rows_of,
        answer=lambda output: output.logits.float(),
        decisions=lambda logits: logits,
        figures=classified,
        write=finetune.write_checkpoint,
        by_token=False,
    ),
    reader.TASK: Task(
        open=open_reader,
        rows=reader.window_rows,
        answer=_span_logits,
        decisions=lambda logits: logits.transpose(1, 2).flatten(0, 1),
        figures=reader.exact_windows,
        write=reader.write_reader,
        by_token=True,
    ),
}
