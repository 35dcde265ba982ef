"""ORPO, Odds Ratio Preference Optimization: pairs of answers, without a reference (Hong et al. 2024)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.conversations import Row
from trainers.pairs import check_pairs
from trainers.tuning import TuneConfig, Watch

if TYPE_CHECKING:
    import torch

    from trainers.batches import Batch
    from trainers.policy import Policy
    from trainers.tuning import Losses


@dataclass(frozen=True)
class OrpoConfig(TuneConfig):
    """`beta`: the weight of the odds ratio beside the cross entropy (the paper's lambda)."""

    beta: float = 0.1


def orpo(
    pairs: list[Row], start: Path | str, out: Path, config: OrpoConfig | None = None,
    data: dict[str, Any] | None = None, watch: Watch | None = None,
) -> Checkpoint:  # fmt: skip
    """A checkpoint at `out`, tuned from `start` on `pairs` ({"prompt", "chosen", "rejected"}).

    It learns the chosen answers as supervised tuning does, so that `start` may be a base model. `tokens`
    counts both answers of a pair, each with its prompt. InputError and resuming as in `sft`."""
    config = config or OrpoConfig()
    check_pairs(pairs)
    check_orpo(config)
    from trainers.preferences.dpo import encode_pairs, pair_batches
    from trainers.tuned import run_of, start_from, write_tuned

    begun = start_from(start, out, config, "orpo")
    encoded, long = encode_pairs(pairs, begun, config.max_tokens)
    run = run_of(begun, config, out, "orpo", pairs, watch)
    steps = pair_batches(encoded, begun.pad_id, config, run.taken)
    while not run.over:
        run.learn([next(steps) for _ in range(config.gradient_accumulation)], orpo_loss(config.beta))
        run.keep()
    told = {**(data or {"name": "pairs"}), "pairs": len(encoded), "too_long": long}
    return write_tuned(begun, config, out, "orpo", run.figures(), told)


def check_orpo(config: OrpoConfig) -> None:
    if not 0 <= config.beta < 100:
        raise InputError(f"orpo.beta = {config.beta}: must be 0 or more and below 100")


def orpo_loss(beta: float) -> "Losses":
    """Cross entropy of the chosen answer - beta * log sigmoid(log odds ratio), where the odds of an answer
    are p / (1 - p) of its tokens' geometric mean p: equations 3 to 7 of the paper."""
    from torch.nn import functional as F

    from trainers.policy import per_answer

    def losses(policy: "Policy", batch: "Batch") -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        told = per_answer(policy.logprobs(policy.hidden(batch), batch), batch, mean=True)
        chosen, rejected = told.view(2, -1)
        ratio = log_odds(chosen) - log_odds(rejected)
        preference = -F.logsigmoid(ratio)
        figures = {"cross_entropy": -chosen.sum(), "log_odds_ratio": ratio.sum()}
        return (beta * preference - chosen).sum(), {**figures, "accuracy": (ratio > 0).sum()}

    return losses


def log_odds(logprob: "torch.Tensor") -> "torch.Tensor":
    """log(p / (1 - p)) of log p; finite up to p = 1."""
    import torch

    logprob = logprob.clamp(max=-1e-6)
    return logprob - torch.log(-torch.expm1(logprob))
