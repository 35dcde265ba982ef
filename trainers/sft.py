"""Supervised tuning: a language model learns the answers of instruction rows, by an adapter or whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.checkpoint import Checkpoint
from trainers.conversations import Row
from trainers.instructions import check_instructions
from trainers.tuning import TuneConfig, Watch

if TYPE_CHECKING:
    import torch

    from trainers.batches import Batch
    from trainers.policy import Policy
    from trainers.rendering import Encoded


@dataclass(frozen=True)
class SftConfig(TuneConfig):
    """`packing`: several rows share a sequence of `max_tokens`, and none sees another."""

    packing: bool = True


def sft(
    rows: list[Row], base: Path | str, out: Path, config: SftConfig | None = None,
    data: dict[str, Any] | None = None, watch: Watch | None = None,
) -> Checkpoint:  # fmt: skip
    """A checkpoint at `out`, tuned from `base` on the answers of `rows` ({"prompt", "response"}).

    The loss is the mean cross entropy of the answers' tokens, their end among them; prompts are read and not
    learned. Rows over `max_tokens` are left out and counted. `data` tells where they are from. Killed and
    called again, it goes on from its last resume point and ends in the same weights. InputError for rows
    that cannot be learned from, before anything is opened.
    """
    config = config or SftConfig()
    check_instructions(rows)
    from trainers.rendering import fitting
    from trainers.tuned import run_of, start_from, write_tuned

    start = start_from(base, out, config, "sft")
    prompts = start.renderer.prompts([row["prompt"] for row in rows])
    answers = start.renderer.answers([row["response"] for row in rows])
    kept, long = fitting([[pair] for pair in zip(prompts, answers, strict=True)], config.max_tokens, "rows")
    run = run_of(start, config, out, "sft", rows, watch)
    steps = batches([row for (row,) in kept], start.pad_id, config, run.taken)
    while not run.over:
        run.learn([next(steps) for _ in range(config.gradient_accumulation)], masked_loss)
        run.keep()
    told = {**(data or {"name": "rows"}), "rows": len(kept), "too_long": long}
    return write_tuned(start, config, out, "sft", run.figures(), told)


def batches(rows: "list[Encoded]", pad_id: int, config: SftConfig, skip: int) -> "Iterator[Batch]":
    """Without end, from the `skip`-th on."""
    from itertools import islice

    from trainers.batches import batch_of, groups, packed, packs

    lengths = [len(prompt) + len(answer) for prompt, answer in rows]
    if config.packing:
        for bins in islice(packs(lengths, config.batch_size, config.max_tokens, config.seed), skip, None):
            yield packed([[rows[at] for at in one] for one in bins], pad_id, config.max_tokens)
    for group in islice(groups(lengths, config.batch_size, config.seed), skip, None):
        yield batch_of([rows[at] for at in group], pad_id)


def masked_loss(policy: "Policy", batch: "Batch") -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
    """Cross entropy of the learned tokens, summed; the loop divides by their number over the whole step."""
    return -policy.logprobs(policy.hidden(batch), batch).sum(), {}
