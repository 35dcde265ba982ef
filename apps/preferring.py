"""A recipe's sections by which a text generator learns preferences."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtimes.errors import InputError
from trainers.preferences.dpo import check_dpo
from trainers.preferences.orpo import check_orpo
from trainers.preferences.ppo import check_ppo
from trainers.reward_config import RewardConfig, check_reward
from trainers.tuning import check_tuning

if TYPE_CHECKING:
    from apps.recipe import Recipe


@dataclass(frozen=True)
class PairsConfig:
    """Pairs of answers, one preferred: a hub id, a file or a folder, and a pattern for folders in it."""

    name: str
    part: str | None = None


@dataclass(frozen=True)
class RewardBase:
    """The encoder that becomes [ppo]'s reward model on the pairs, and how it learns from them."""

    base: str = "sentence-transformers/all-MiniLM-L6-v2"
    epochs: int = 1
    learning_rate: float = 5e-5
    max_tokens: int = 192
    seed: int = 0

    @property
    def config(self) -> RewardConfig:
        """For `train_reward`; a prompt takes at most half of a short row."""
        most = min(RewardConfig.prompt_tokens, self.max_tokens // 2)
        return RewardConfig(
            self.epochs, learning_rate=self.learning_rate, max_tokens=self.max_tokens, prompt_tokens=most,
            seed=self.seed,
        )  # fmt: skip


def check_preferring(recipe: "Recipe") -> None:
    """InputError for sections that do not go together, or a value in them that cannot work."""
    preferring = {key: getattr(recipe, key) for key in ("orpo", "dpo", "ppo")}
    there = {key: config for key, config in preferring.items() if config is not None}
    if len(there) > 1:
        raise InputError(f"{', '.join(there)}: take one of them in a recipe")
    if bool(there) != (recipe.pairs is not None):
        raise InputError("pairs: name them together with one of [orpo], [dpo] and [ppo]")
    for key, config in {"sft": recipe.sft, **there}.items():
        if config.max_tokens > recipe.base.max_tokens and (key != "sft" or recipe.instructions is not None):
            context = f"base.max_tokens ({recipe.base.max_tokens}), the context"
            raise InputError(f"{key}.max_tokens = {config.max_tokens}: must be at most {context}")
        if key != "sft":
            check_tuning(config, key)
    checks: dict[str, Any] = {"orpo": check_orpo, "dpo": check_dpo, "ppo": check_ppo}
    for key, config in there.items():
        checks[key](config)
    if "ppo" in there:
        check_reward(recipe.reward.config)
