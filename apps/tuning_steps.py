"""What the steps of a language model's recipe do: tuning on instructions, then on preferences."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.preferring import PairsConfig
from apps.recipe import Recipe
from runtimes.errors import InputError

if TYPE_CHECKING:
    from apps.steps import Step


def make_tuned(recipe: Recipe, data: "Step", teacher: "Step", start: "Step", out: Path) -> None:
    from trainers.instructions import load_instructions
    from trainers.sft import sft

    assert recipe.instructions is not None
    found = load_instructions(recipe.instructions.name)
    sft(_train_rows(found), start.path, out, recipe.sft, found.source)


def make_dpo(recipe: Recipe, data: "Step", teacher: "Step", start: "Step", out: Path) -> None:
    from trainers.preferences.dpo import dpo

    pairs = _pairs(recipe.pairs)
    dpo(_train_rows(pairs), start.path, out, recipe.dpo, pairs.source)


def make_orpo(recipe: Recipe, data: "Step", teacher: "Step", start: "Step", out: Path) -> None:
    from trainers.preferences.orpo import orpo

    pairs = _pairs(recipe.pairs)
    orpo(_train_rows(pairs), start.path, out, recipe.orpo, pairs.source)


def make_reward(recipe: Recipe, out: Path) -> None:
    """A reward model of the pairs, measured on a tenth of them that it did not see."""
    from trainers.reward import train_reward

    told = recipe.reward
    rows = _train_rows(_pairs(recipe.pairs))
    held_out = max(1, len(rows) // 10)
    train_reward(rows[held_out:], rows[:held_out], told.base, out, told.config)


def make_ppo(recipe: Recipe, reward: "Step", start: "Step", out: Path) -> None:
    from trainers.preferences.ppo import ppo
    from trainers.reward import open_reward

    pairs = _pairs(recipe.pairs)
    prompts = [pair["prompt"] for pair in _train_rows(pairs)]
    ppo(prompts, open_reward(reward.path), start.path, out, recipe.ppo, pairs.source)


def _pairs(config: PairsConfig | None) -> Any:
    from trainers.pairs import load_pairs

    assert config is not None
    return load_pairs(config.name, config.part)


def _train_rows(found: Any) -> list[Any]:
    """The train split; of a set that has none, all that there is."""
    rows: list[Any] = found.splits.get("train") or [row for part in found.splits.values() for row in part]
    if not rows:
        raise InputError(f"{found.name}: no rows to train on")
    return rows
