"""Answers of a language model to many prompts at once, sampled or greedy (torch)."""

from collections.abc import Sequence
from typing import Any

import torch

# Steps between looks at whether all rows have ended: each look waits for the device.
_LOOK = 8


@torch.no_grad()
def sample(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, ends: Sequence[int],
    temperature: float = 1.0, seed: int = 0, batch: int = 64,
) -> list[list[int]]:  # fmt: skip
    """Token ids of one answer a prompt, cut behind its first end token (which stays; a longer one has none).

    Sampled from the whole distribution at `temperature`; 0 takes the likeliest token. The same seed, prompts
    and batch give the same answers on the same machine. Prompts of like length run together.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    random = torch.Generator(device).manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda at: (len(prompts[at]), at))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        ids = _continue(model, [prompts[at] for at in rows], max_new_tokens, ends, temperature, random)
        for at, row in zip(rows, ids.tolist(), strict=True):
            answers[at] = cut(row, ends)
    model.train(was_training)
    return answers


def cut(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Up to the first end token, which stays."""
    stop = next((place for place, one in enumerate(ids) if one in ends), len(ids) - 1)
    return ids[: stop + 1]


def _continue(
    model: Any, prompts: list[Sequence[int]], steps: int, ends: Sequence[int], temperature: float,
    random: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """(rows, new tokens). Prompts are padded on the left, so that all rows go on at the same place."""
    from transformers import DynamicCache

    device = random.device
    ids, there = _left_padded(prompts, ends[0])
    last = (there.cumsum(1) - 1).clamp(min=0)
    # A padding token sees itself alone, for a softmax over nothing would not be a number.
    length = ids.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril() & there[:, None, :]
    mask = (seen | torch.eye(length, dtype=torch.bool))[:, None].to(device)
    ids, place, there = ids.to(device), last.to(device), there.to(device)
    stop, ended = (
        torch.tensor(list(ends), device=device),
        torch.zeros(len(prompts), dtype=torch.bool, device=device),
    )
    cache, made = DynamicCache(), []
    for step in range(steps):
        told = model(
            input_ids=ids, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        ids = _choose(told.logits[:, -1].float(), temperature, random)[:, None]
        made.append(ids)
        ended |= torch.isin(ids[:, 0], stop)
        if (step + 1) % (_LOOK if device.type == "cuda" else 1) == 0 and bool(ended.all()):
            break
        place = place[:, -1:] + 1
        there = torch.nn.functional.pad(there, (0, 1), value=True)
        mask = there[:, None, None, :]
    return torch.cat(made, dim=1)


def _left_padded(prompts: list[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (rows, length), and which of them are the prompt's."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad_id)
    there = torch.zeros(len(prompts), length, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt)
        there[row, length - len(prompt) :] = True
    return ids, there


def _choose(logits: torch.Tensor, temperature: float, random: torch.Generator) -> torch.Tensor:
    """(rows,): the likeliest, or a draw (the largest of p / exponential noise is one from p)."""
    if temperature == 0:
        return logits.argmax(-1)
    noise = torch.empty_like(logits).exponential_(generator=random)
    return ((logits / temperature).softmax(-1) / noise).argmax(-1)
