"""How far a tuned model has moved on its own answers, and what it has forgotten (torch).

Everything is computed in fp32: at this size a GPU waits for launches, not for arithmetic.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from runtimes.errors import InputError

Ids = list[int]


@dataclass(frozen=True)
class Answer:
    """`ids` are the generated tokens; the one that ended it, if any, is the last of them."""

    text: str
    ids: Ids
    ended: bool


def device_of(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def _batches(lengths: Sequence[int], batch: int) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for first in range(0, len(order), batch):
        yield order[first : first + batch]


def divergence(
    model: Any, reference: Any, prompts: Sequence[Ids], answers: Sequence[Ids], batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """KL(model || reference) of each answer in nats, and its tokens, both (n,); answers are the model's own.

    At each place the whole distributions are compared, which has the same mean as the log-ratio of the drawn
    tokens and a smaller variance. Both models are read in fp32.
    """
    sums, counts = np.zeros(len(answers)), np.array([len(ids) for ids in answers])
    lengths = [len(p) + len(a) for p, a in zip(prompts, answers, strict=True)]
    for rows in _batches(lengths, batch):
        taken = [(prompts[i], answers[i]) for i in rows]
        sums[rows] = _divergence(model, reference, taken)
    return sums, counts


def _divergence(model: Any, reference: Any, rows: list[tuple[Ids, Ids]]) -> np.ndarray:
    ids, places = _right_padded(rows, device_of(model))
    total = np.zeros(len(rows))
    with torch.inference_mode():
        ours, theirs = (_states(one, ids)[places[:, 0], places[:, 1]] for one in (model, reference))
        step = 2048 if ids.is_cuda else 256  # rows of logits over the whole vocabulary at a time
        for first in range(0, len(places), step):
            part = slice(first, first + step)
            logs, other = (
                F.log_softmax(one.get_output_embeddings()(states[part]).float(), -1)
                for one, states in ((model, ours), (reference, theirs))
            )
            each = (logs.exp() * (logs - other)).sum(-1).double().cpu().numpy()
            np.add.at(total, places[part, 0].cpu().numpy(), each)
    return total


def _right_padded(rows: list[tuple[Ids, Ids]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (rows, length), and the (row, place) from which each token of an answer is foretold."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    places = []
    for i, (prompt, answer) in enumerate(rows):
        ids[i, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        places += [(i, len(prompt) - 1 + n) for n in range(len(answer))]
    return ids.to(device), torch.tensor(places, dtype=torch.long).reshape(-1, 2).to(device)


def _states(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states; what is padded on the right is seen by no token before it."""
    states: torch.Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return states


def perplexity(model: Any, ids: Ids, window: int = 512, batch: int = 8) -> float:
    """exp of the mean loss over a text cut into windows, each read from its own start.

    InputError for a text shorter than two tokens.
    """
    if len(ids) < 2:
        raise InputError("perplexity: the text is shorter than two tokens; give a longer one")
    window = min(window, len(ids))
    rows = torch.tensor(ids[: len(ids) // window * window]).reshape(-1, window)
    total, device = 0.0, device_of(model)
    with torch.inference_mode():
        for part in rows.split(batch):
            on = part.to(device)
            for row, states in zip(on, _states(model, on), strict=True):
                logits = model.get_output_embeddings()(states[:-1]).float()
                total += float(F.cross_entropy(logits, row[1:], reduction="sum"))
    return math.exp(total / (len(rows) * (window - 1)))
