"""What the steps of a language model's recipe do: instructions, the base, tuning, preferences."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.recipe import PairsConfig, Recipe
from runtimes.errors import InputError

if TYPE_CHECKING:
    from apps.steps import Step


def make_instructions(recipe: Recipe, out: Path) -> None:
    """The rows of [data] that hold a prompt and an answer."""
    from trainers.conversations import save_conversations
    from trainers.instructions import load_instructions

    save_conversations(load_instructions(recipe.data.name), out)


def make_generator(recipe: Recipe, out: Path) -> None:
    """The base as a checkpoint, with a context of [train] max_tokens."""
    from trainers.generator import adopt_generator
    from trainers.sources import find

    source = find(recipe.base.name, "model")
    origin = {"name": recipe.base.name, "place": source.place, "digest": source.digest}
    adopt_generator(source.path, out, recipe.train.max_tokens, origin)


def make_sft(recipe: Recipe, data: "Step", teacher: "Step", start: "Step", out: Path) -> None:
    from trainers.conversations import open_conversations
    from trainers.sft import sft

    rows = open_conversations(data.path)
    sft(_train_rows(rows), start.path, out, recipe.sft, rows.source)


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

    assert recipe.reward is not None
    rows = _train_rows(_pairs(recipe.pairs))
    held_out = max(1, len(rows) // 10)
    train_reward(rows[held_out:], rows[:held_out], recipe.reward.base, out, recipe.reward.config())


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
