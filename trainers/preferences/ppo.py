"""PPO, Proximal Policy Optimization (Schulman et al. 2017), of answers that a reward function scores.

A round: answers are sampled to some prompts and scored; the policy with its adapter off is the reference that
it is held to; then some passes are made over these answers, in minibatches, by the clipped objective.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.conversations import Prompt, prompt_of
from trainers.preferences.advantages import (
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    next_kl,
    token_rewards,
    whitened,
)
from trainers.tuning import Run, TuneConfig, Watch

if TYPE_CHECKING:
    import torch

    from trainers.batches import Batch
    from trainers.policy import Policy
    from trainers.rendering import Encoded
    from trainers.tuned import Start
    from trainers.tuning import Losses

# (prompts, answers) → a score an answer
Reward = Callable[[list[Prompt], list[str]], Any]


@dataclass(frozen=True)
class PpoConfig(TuneConfig):
    """`rollouts`: answers a round, of at most `max_new_tokens`; `epochs`: passes over them, in minibatches of
    `batch_size` * `gradient_accumulation`. `tokens` counts what passes through the policy to be learned from;
    what is read to sample and to score is told as `rollout_tokens`.

    `kl`: the price of a nat of drift from the start; with `kl_target` (nats an answer; 0: fixed) it adapts.
    `whiten`: scores are whitened over a round. `missing_end`: taken off the score of an answer that was
    cut."""

    learning_rate: float = 5e-5
    batch_size: int = 16
    rollouts: int = 64
    max_new_tokens: int = 48
    temperature: float = 1.0
    epochs: int = 4
    clip: float = 0.2
    value_clip: float = 0.2
    value_weight: float = 0.1
    gamma: float = 1.0
    lam: float = 0.95
    kl: float = 0.05
    kl_target: float = 0.0
    whiten: bool = True
    missing_end: float = 1.0


@dataclass
class Round:
    """Answers of one round, by prompt: what was sampled and what is to be learned from each token."""

    rows: "list[Encoded]"
    old: "list[torch.Tensor]"
    values: "list[torch.Tensor]"
    advantages: "list[torch.Tensor]"
    returns: "list[torch.Tensor]"


def ppo(
    prompts: list[Prompt], reward: Reward, start: Path | str, out: Path, config: PpoConfig | None = None,
    data: dict[str, Any] | None = None, watch: Watch | None = None,
) -> Checkpoint:  # fmt: skip
    """A checkpoint at `out`, tuned from `start` towards a high `reward(prompts, answers)`.

    InputError for no prompts, and for rewards that are no finite numbers; then nothing stands at `out`.
    Killed and called again, it goes on from its last resume point, which stands between two rounds. A reward
    is known by its attribute `digest`, which those of `open_reward` have, else by its name, and by `data`:
    two functions of one name need one of the two, or a killed run of the other one is gone on with."""
    config = config or PpoConfig()
    check_prompts(prompts)
    check_ppo(config)
    from trainers.batches import shuffled
    from trainers.policy import reference_of
    from trainers.tuned import run_of, start_from, write_tuned

    begun = start_from(start, out, config, "ppo")
    encoded, kept = _readable(prompts, begun, config)
    policy = begun.policy
    give_head(policy)
    reference = reference_of(begun.folder, policy, policy.peft is None, config.temperature)
    named = getattr(reward, "__qualname__", type(reward).__qualname__)
    judge = {"digest": getattr(reward, "digest", named), "data": data}
    run = run_of(begun, config, out, "ppo", prompts, watch, reward=judge)
    run.memory = {**remember(config), **run.memory}
    order = shuffled(len(kept), config.rollouts, config.seed, skip=run.memory["rounds"])
    while not run.over:
        chosen = next(order)
        asked = [prompts[kept[at]] for at in chosen]
        made = play([encoded[at] for at in chosen], asked, reward, reference, begun, run, config)
        learn(made, begun, run, config)
        run.keep()
    told = {**(data or {"name": "prompts"}), "prompts": len(kept), "too_long": len(prompts) - len(kept)}
    figures = {
        **run.figures(),
        "rollout_tokens": run.memory["rollout_tokens"],
        "rounds": run.memory["rounds"],
    }
    return write_tuned(begun, config, out, "ppo", figures, told)


def give_head(policy: "Policy") -> None:
    """A value head on the hidden states, which expects nothing yet."""
    import torch

    policy.head = torch.nn.Linear(policy.model.config.hidden_size, 1).to(policy.device)
    torch.nn.init.zeros_(policy.head.weight)
    torch.nn.init.zeros_(policy.head.bias)


def remember(config: PpoConfig) -> dict[str, Any]:
    """What a run carries from round to round."""
    return {"rounds": 0, "kl": config.kl, "rollout_tokens": 0, "told": {}}


def check_prompts(prompts: list[Any]) -> None:
    if not prompts:
        raise InputError("no prompts: the list is empty; give it at least one")
    for number, prompt in enumerate(prompts):
        prompt_of(f"prompts row {number}", prompt)


def check_ppo(config: PpoConfig) -> None:
    for key in ("rollouts", "max_new_tokens", "epochs"):
        if getattr(config, key) < 1:
            raise InputError(f"ppo.{key} = {getattr(config, key)}: must be 1 or more")
    for key in ("temperature", "clip", "value_clip"):
        if not 0 < getattr(config, key) <= 10:
            raise InputError(f"ppo.{key} = {getattr(config, key)}: must be above 0, and at most 10")
    for key in ("kl", "kl_target", "missing_end", "value_weight"):
        if not 0 <= getattr(config, key) < 1e6:
            raise InputError(f"ppo.{key} = {getattr(config, key)}: must be 0 or more")
    if not (0 < config.gamma <= 1 and 0 <= config.lam <= 1):
        raise InputError("ppo: gamma must be above 0 and at most 1; lam from 0 to 1")


def _readable(prompts: list[Prompt], start: "Start", config: PpoConfig) -> tuple[list[list[int]], list[int]]:
    """Ids of the prompts that leave room for an answer, and which these are."""
    ids = start.renderer.prompts(prompts)
    kept = [at for at, one in enumerate(ids) if len(one) + config.max_new_tokens <= config.max_tokens]
    if not kept:
        raise InputError(
            f"prompts: none leaves room for max_new_tokens = {config.max_new_tokens} within max_tokens = "
            f"{config.max_tokens}; raise it or shorten them"
        )
    return [ids[at] for at in kept], kept


# one round


def play(
    ids: list[list[int]], prompts: list[Prompt], reward: Reward, reference: Any, start: "Start", run: Run,
    config: PpoConfig,
) -> Round:  # fmt: skip
    """Sample an answer to each prompt, score it, and work out each token's advantage."""
    from trainers.rollouts import sample

    policy, ends = start.policy, [start.renderer.end, *start.renderer.others]
    seed = config.seed * 1_000_003 + run.memory["rounds"]
    with policy.autocast():
        answers = sample(policy.model, ids, config.max_new_tokens, ends, config.temperature, seed, len(ids))
    texts = [start.renderer.decode(answer) for answer in answers]
    scores = checked(reward(prompts, texts), len(texts))
    rows = list(zip(ids, answers, strict=True))
    old, held, values = experience(rows, reference, start, config)
    drift = [(new - ref).cpu().double().numpy() for new, ref in zip(old, held, strict=True)]
    measured = float(np.mean([one.sum() for one in drift]))
    cut = np.array([answer[-1] not in ends for answer in answers])
    _tell(run, scores, measured, answers, cut, rows)
    shaped = (whitened(scores) if config.whiten else scores) - config.missing_end * cut
    expected = [one.cpu().double().numpy() for one in values]
    rewards = token_rewards(shaped, drift, run.memory["kl"])
    found = [gae(r, v, config.gamma, config.lam) for r, v in zip(rewards, expected, strict=True)]
    returns = [a + v for a, v in zip(found, expected, strict=True)]
    spread = whitened(np.concatenate(found))
    advantages = np.split(spread, np.cumsum([len(one) for one in found])[:-1])
    share = len(rows) / 1000
    run.memory["kl"] = next_kl(run.memory["kl"], measured, config.kl_target, share)
    return Round(rows, old, values, _on(policy, advantages), _on(policy, returns))


def checked(scores: Any, n: int) -> np.ndarray:
    """(n,) float64; InputError where a score is missing, or no finite number."""
    try:
        found = np.asarray(scores, np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise InputError("reward: gave no list of numbers; give one for each answer") from None
    if len(found) != n:
        raise InputError(f"reward: gave {len(found)} numbers for {n} answers; give one for each")
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        first = f"{found[bad[0]]} for answer {bad[0]} of {n}"
        raise InputError(f"reward: gave {first}; give finite numbers (no checkpoint was written)")
    return found


def experience(
    rows: "list[Encoded]", reference: Any, start: "Start", config: PpoConfig
) -> "tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]":
    """By answer, (tokens,): log-probabilities of the policy as it sampled, of the reference; values."""
    import torch

    from trainers.batches import batch_of

    policy = start.policy
    found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    with torch.no_grad(), policy.autocast():
        for at in range(0, len(rows), config.batch_size):
            part = rows[at : at + config.batch_size]
            batch = batch_of(part, start.pad_id).to(policy.device)
            states = policy.hidden(batch)
            drawn = policy.logprobs(states, batch, config.temperature)
            told = (drawn, reference(batch), expected(policy, states))
            lengths = [len(answer) for _, answer in part]
            for kept, values in zip(found, told, strict=True):
                kept.extend(values.split(lengths))
    return found


def expected(policy: "Policy", states: "torch.Tensor") -> "torch.Tensor":
    """(n,) fp32: what the value head expects still to come."""
    import torch

    with torch.autocast(policy.device.type, enabled=False):
        values: torch.Tensor = policy.head(states.float())[:, 0]
    return values


def _on(policy: "Policy", parts: Sequence[np.ndarray]) -> "list[torch.Tensor]":
    import torch

    return [torch.tensor(one, dtype=torch.float32).to(policy.device) for one in parts]


def _tell(
    run: Run, scores: np.ndarray, drift: float, answers: list[list[int]], cut: np.ndarray, rows: Any
) -> None:
    """What the learning curve says of the round."""
    run.memory["rounds"] += 1
    run.memory["rollout_tokens"] += sum(len(prompt) + len(answer) for prompt, answer in rows)
    run.memory["told"] = {
        "reward": round(float(scores.mean()), 6),
        "kl": round(drift, 6),
        "kl_weight": round(run.memory["kl"], 6),
        "answer_tokens": round(float(np.mean([len(one) for one in answers])), 3),
        "ended": round(1 - float(cut.mean()), 4),
    }


def learn(made: Round, start: "Start", run: Run, config: PpoConfig) -> None:
    """Passes over the round's answers, each in an order of its own, until the budget is spent."""
    losses = ppo_loss(config)
    size = config.batch_size
    for epoch in range(config.epochs):
        random = np.random.default_rng([config.seed, run.memory["rounds"], epoch])
        order = random.permutation(len(made.rows)).tolist()
        parts = [order[at : at + size] for at in range(0, len(order), size)]
        for at in range(0, len(parts), config.gradient_accumulation):
            if run.over:
                return
            chosen = parts[at : at + config.gradient_accumulation]
            run.learn([_minibatch(made, rows, start.pad_id) for rows in chosen], losses)


def _minibatch(made: Round, rows: list[int], pad_id: int) -> "Batch":
    from dataclasses import replace

    import torch

    from trainers.batches import batch_of

    kept = {"old": made.old, "values": made.values, "advantages": made.advantages, "returns": made.returns}
    extra = {name: torch.cat([parts[at] for at in rows]) for name, parts in kept.items()}
    return replace(batch_of([made.rows[at] for at in rows], pad_id), extra=extra)


def ppo_loss(config: PpoConfig) -> "Losses":
    """The clipped objective and the value's clipped error, summed over tokens."""

    def losses(policy: "Policy", batch: "Batch") -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        extra = batch.extra or {}
        states = policy.hidden(batch)
        logprobs = policy.logprobs(states, batch, config.temperature)
        gain = clipped_policy_loss(logprobs, extra["old"], extra["advantages"], config.clip).sum()
        error = clipped_value_loss(
            expected(policy, states), extra["values"], extra["returns"], config.value_clip
        ).sum()
        moved = (logprobs - extra["old"]).detach()
        figures = {"policy_loss": gain, "value_loss": error, "moved": moved.abs().sum()}
        return gain + config.value_weight * error, figures

    return losses
