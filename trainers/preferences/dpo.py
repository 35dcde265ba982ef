"""DPO, Direct Preference Optimization: pairs of answers, against a reference (Rafailov et al. 2023)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.conversations import Row
from trainers.pairs import check_pairs
from trainers.tuning import TuneConfig, Watch

if TYPE_CHECKING:
    import torch

    from trainers.batches import Batch
    from trainers.policy import Policy
    from trainers.tuned import Start
    from trainers.tuning import Losses


@dataclass(frozen=True)
class DpoConfig(TuneConfig):
    """`beta`: how strongly the policy is held to the reference. `reference`: `adapter` reads it from the
    policy with its adapter off; `copy` holds the start a second time; auto is `adapter` where there is
    one."""

    beta: float = 0.1
    learning_rate: float = 5e-5
    reference: Literal["auto", "adapter", "copy"] = "auto"


def dpo(
    pairs: list[Row], start: Path | str, out: Path, config: DpoConfig | None = None,
    data: dict[str, Any] | None = None, watch: Watch | None = None,
) -> Checkpoint:  # fmt: skip
    """A checkpoint at `out`, tuned from `start` on `pairs` ({"prompt", "chosen", "rejected"}).

    `start` is the reference too. `tokens` counts both answers of a pair, each with its prompt. InputError and
    resuming as in `sft`.
    """
    config = config or DpoConfig()
    check_pairs(pairs)
    check_dpo(config)
    from trainers.policy import reference_of
    from trainers.tuned import run_of, start_from, write_tuned

    begun = start_from(start, out, config, "dpo")
    encoded, long = encode_pairs(pairs, begun, config.max_tokens)
    second = config.reference == "copy" or begun.policy.peft is None
    losses = dpo_loss(reference_of(begun.folder, begun.policy, second), config.beta)
    run = run_of(begun, config, out, "dpo", pairs, watch)
    steps = pair_batches(encoded, begun.pad_id, config, run.taken)
    while not run.over:
        run.learn([next(steps) for _ in range(config.gradient_accumulation)], losses)
        run.keep()
    told = {**(data or {"name": "pairs"}), "pairs": len(encoded), "too_long": long}
    return write_tuned(begun, config, out, "dpo", run.figures(), told)


def check_dpo(config: DpoConfig) -> None:
    if not 0 < config.beta < 100:
        raise InputError(f"dpo.beta = {config.beta}: must be above 0 and below 100")
    if config.reference == "adapter" and config.peft == "none":
        raise InputError("dpo.reference = adapter: there is none with peft = none; take auto or copy")


def dpo_loss(reference: "Any", beta: float) -> "Losses":
    """-log sigmoid(beta * ((chosen - rejected) of the policy - the same of the reference)), where each is the
    log-probability of a whole answer: equation 7 of the paper."""
    from torch.nn import functional as F

    from trainers.policy import per_answer

    def losses(policy: "Policy", batch: "Batch") -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        held = per_answer(reference(batch), batch)
        told = per_answer(policy.logprobs(policy.hidden(batch), batch), batch)
        chosen, rejected = (beta * (told - held)).view(2, -1)  # implicit rewards
        margin = chosen - rejected
        figures = {"chosen_reward": chosen.sum(), "rejected_reward": rejected.sum()}
        return -F.logsigmoid(margin).sum(), {**figures, "accuracy": (margin > 0).sum()}

    return losses


def encode_pairs(pairs: list[Row], start: "Start", max_tokens: int) -> tuple[list[Any], int]:
    """[(chosen, rejected)], each (prompt's ids, answer's ids); and how many pairs were too long."""
    from trainers.rendering import fitting

    prompts = start.renderer.prompts([pair["prompt"] for pair in pairs])
    answers = [start.renderer.answers([pair[key] for pair in pairs]) for key in ("chosen", "rejected")]
    rows = [[(p, good), (p, bad)] for p, good, bad in zip(prompts, *answers, strict=True)]
    return fitting(rows, max_tokens, "pairs")


def pair_batches(encoded: list[Any], pad_id: int, config: TuneConfig, skip: int) -> "Iterator[Batch]":
    """Without end, from the `skip`-th on: the chosen answers of a batch first, then the rejected ones."""
    from itertools import islice

    from trainers.batches import batch_of, groups

    lengths = [max(len(prompt) + len(answer) for prompt, answer in pair) for pair in encoded]
    for group in islice(groups(lengths, config.batch_size, config.seed), skip, None):
        rows = [encoded[at][side] for side in (0, 1) for at in group]
        yield batch_of(rows, pad_id, units=len(group))
