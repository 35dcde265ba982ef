"""How a reward learns from preference pairs, and what of it cannot work."""

from dataclasses import dataclass
from typing import Literal

from runtimes.errors import InputError

_SPECIAL = 3  # [CLS] prompt [SEP] answer [SEP]


@dataclass(frozen=True)
class RewardConfig:
    """`max_tokens`: prompt and answer together; of a prompt that is too long its end is kept, of an answer
    its start. `prompt_tokens`: the most that a prompt may take of them. `precision` auto: bf16 on a GPU."""

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_tokens: int = 192
    prompt_tokens: int = 64
    precision: Literal["auto", "fp32"] = "auto"
    seed: int = 0


def check_reward(config: RewardConfig, section: str = "reward") -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    for key in ("epochs", "batch_size", "prompt_tokens"):
        if getattr(config, key) < 1:
            raise InputError(f"{section}.{key} = {getattr(config, key)}: must be 1 or more")
    if not 0 < config.learning_rate < 1:
        raise InputError(f"{section}.learning_rate = {config.learning_rate}: must be above 0 and below 1")
    if not 0 <= config.warmup < 1 or not 0 <= config.weight_decay < 1:
        raise InputError(f"{section}: warmup and weight_decay must be 0 or more and below 1")
    if not 0 <= config.seed < 1 << 32:
        raise InputError(f"{section}.seed = {config.seed}: must be from 0 to {(1 << 32) - 1}")
    least = config.prompt_tokens + _SPECIAL + 1
    if config.max_tokens < least:
        raise InputError(
            f"{section}.max_tokens = {config.max_tokens}: must be {least} or more, so that an answer has "
            f"room behind a prompt of {config.prompt_tokens}"
        )
