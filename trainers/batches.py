"""Token ids in batches for a decoder: rows, packed rows, and which positions are learned from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, islice
from typing import Any

import numpy as np
import torch

from trainers.rendering import Encoded


@dataclass(frozen=True)
class Batch:
    """`ids` (rows, length) int64, padded on the right; `mask` None where plain causal attention is right
    (what stands on the right of a token is not seen), else bool (rows, 1, length, length) with `positions`
    (rows, length).

    `index` (n,): where, in the flattened hidden states, the `targets` (n,) are told; `owner` (n,): which
    answer of the batch each belongs to, of `answers`. `units`: what the loss is a mean over. `tokens`: those
    that are no padding."""

    ids: torch.Tensor
    index: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor
    answers: int
    units: int
    tokens: int
    mask: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    extra: dict[str, torch.Tensor] | None = None

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, torch.Tensor):
                moved[one.name] = _sent(value, device)
            elif isinstance(value, dict):
                moved[one.name] = {name: _sent(tensor, device) for name, tensor in value.items()}
        return replace(self, **moved)


def _sent(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To the device without waiting for it."""
    if value.device.type != "cpu":
        return value
    return value.pin_memory().to(device, non_blocking=True)


def batch_of(rows: Sequence[Encoded], pad_id: int, units: int | None = None) -> Batch:
    """One row a sequence, padded to the longest (to a multiple of 8). Units: the learned tokens, if not
    told."""
    return packed([[row] for row in rows], pad_id, None, units)


def packed(
    bins: Sequence[Sequence[Encoded]], pad_id: int, length: int | None, units: int | None = None
) -> Batch:
    """Several rows a sequence, of `length` tokens: each sees itself alone and is counted from position 0."""
    longest = max(sum(len(p) + len(a) for p, a in rows) for rows in bins)
    length = length or -(-longest // 8) * 8
    ids = np.full((len(bins), length), pad_id, np.int64)
    place = np.zeros((len(bins), length), np.int64)
    part = np.full((len(bins), length), -1, np.int64)
    index, targets, owner = [], [], []
    answers = 0
    for row, content in enumerate(bins):
        start = 0
        for number, (prompt, answer) in enumerate(content):
            first, end = start + len(prompt), start + len(prompt) + len(answer)
            ids[row, start:first], ids[row, first:end] = prompt, answer
            place[row, start:end], part[row, start:end] = np.arange(end - start), number
            index.append(np.arange(first - 1, end - 1) + row * length)
            targets.append(np.asarray(answer, np.int64))
            owner.append(np.full(len(answer), answers))
            answers, start = answers + 1, end
    told, learned, owned = (torch.from_numpy(np.concatenate(parts)) for parts in (index, targets, owner))
    several = any(len(content) > 1 for content in bins)
    return Batch(
        torch.from_numpy(ids), told, learned, owned, answers=answers, units=units or len(learned),
        tokens=int((part >= 0).sum()), mask=_blocks(part) if several else None,
        positions=torch.from_numpy(place) if several else None,
    )  # fmt: skip


def _blocks(part: np.ndarray) -> torch.Tensor:
    """(rows, 1, length, length): causal, and only within the same row of a packed sequence. Padding sees
    padding, so that no softmax is over nothing."""
    same = part[:, None, :, None] == part[:, None, None, :]
    return torch.from_numpy(same & np.tri(part.shape[1], dtype=bool))


def pack(lengths: Sequence[int], order: Sequence[int], length: int) -> list[list[int]]:
    """Rows in bins of at most `length` tokens: in that order, each into the first open bin that has room."""
    bins: list[list[int]] = []
    room: list[int] = []
    first = 0  # all bins before it are all but full
    for row in order:
        for at in range(first, len(bins)):
            if room[at] >= lengths[row]:
                bins[at].append(row)
                room[at] -= lengths[row]
                break
        else:
            bins.append([row])
            room.append(length - lengths[row])
        first = max(first, len(bins) - 64)
    return bins


def packs(lengths: Sequence[int], size: int, length: int, seed: int) -> Iterator[list[list[int]]]:
    """Without end: `size` bins of rows at a time, each epoch in an order of its own."""
    epoch = 0
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(len(lengths)).tolist()
        bins = pack(lengths, order, length)
        np.random.default_rng([seed, epoch, 1]).shuffle(bins)  # type: ignore[arg-type]
        yield from (bins[at : at + size] for at in range(0, len(bins), size))
        epoch += 1


def groups(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Without end: `size` rows of like length at a time, each epoch in an order of its own."""
    counted, epoch = np.asarray(lengths), 0
    while True:
        random = np.random.default_rng([seed, epoch])
        order, block = random.permutation(len(counted)), size * 32
        blocks = [order[at : at + block] for at in range(0, len(order), block)]
        order = np.concatenate([one[np.argsort(-counted[one], kind="stable")] for one in blocks])
        chunks = [order[at : at + size] for at in range(0, len(order), size)]
        yield from (chunks[at].tolist() for at in random.permutation(len(chunks)))
        epoch += 1


def shuffled(rows: int, size: int, seed: int, skip: int = 0) -> Iterator[list[int]]:
    """Without end, from the `skip`-th on: `size` rows at a time, each epoch in an order of its own."""

    def endless() -> Iterator[int]:
        for epoch in count():
            yield from np.random.default_rng([seed, epoch]).permutation(rows).tolist()

    stream = islice(endless(), skip * size, None)
    while True:
        yield list(islice(stream, size))
