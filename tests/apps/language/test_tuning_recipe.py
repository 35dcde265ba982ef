"""A language model through a recipe: instructions, then preferences, by the command line."""

import json
from pathlib import Path

import pytest
from tiny_generator import make_generator

from apps.cli.main import run
from apps.recipe import read_recipe
from runtimes.errors import InputError
from trainers.checkpoint import open_checkpoint
from trainers.generator import open_generator

RECIPE = """
name = "tiny-talk"
task = "text-generation"
[data]
name = "{folder}/text.jsonl"
[base]
name = "{folder}/base"
max_tokens = 96
[instructions]
name = "{folder}/rows.jsonl"
[sft]
tokens = 500
max_tokens = 64
batch_size = 2
learning_rate = 1e-2
device = "cpu"
[pairs]
name = "{folder}/pairs.jsonl"
[dpo]
tokens = 500
max_tokens = 64
batch_size = 4
peft = "ia3"
learning_rate = 1e-2
device = "cpu"
"""
PPO = """
[reward]
base = "{encoder}"
max_tokens = 32
[ppo]
tokens = 400
max_tokens = 64
batch_size = 4
rollouts = 4
max_new_tokens = 6
device = "cpu"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("talk")
    make_generator(made / "base")
    rows = [{"instruction": f"the {who}", "output": f"{who} sees it"} for who in ("cat", "dog", "bird")]
    pairs = [{"prompt": row["instruction"], "chosen": " sees", "rejected": f" {row['output']}"}
             for row in rows]  # fmt: skip
    text = [{"text": "the cat sees a tree and the big dog"}] * 40
    for name, content in (("rows", rows), ("pairs", pairs), ("text", text)):
        (made / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    (made / "recipe.toml").write_text(RECIPE.format(folder=made))
    return made


def test_a_recipe_is_trained_step_by_step_and_reused(folder: Path, capsys) -> None:
    command = ["train", str(folder / "recipe.toml"), "--runs", str(folder / "runs")]
    assert run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    made = open_checkpoint(told["dpo"])
    assert [step["step"] for step in made.meta["lineage"]] == ["adopted", "sft", "dpo"]
    assert made.limits["max_tokens"] == 96  # the context, not the length that was trained on
    assert made.meta["lineage"][2]["parent"] == open_checkpoint(told["tuned"]).digest
    open_generator(made.path)
    assert run([*command, "--dpo.beta", "0.3"]) == 0
    out = capsys.readouterr()
    assert "tuned: reused" in out.err and "dpo: done" in out.err
    assert out.out.splitlines()[-1].startswith("dpo")


def test_ppo_learns_from_a_reward_of_the_pairs(folder: Path, tiny_base: Path, capsys) -> None:
    text = (folder / "recipe.toml").read_text()
    kept = text[: text.index("[dpo]")] + PPO.format(encoder=tiny_base)
    (folder / "ppo.toml").write_text(kept)
    assert run(["train", str(folder / "ppo.toml"), "--runs", str(folder / "runs"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    made = open_checkpoint(told["ppo"])
    assert made.meta["metrics"]["training"]["rounds"] > 0
    assert open_checkpoint(told["reward"]).task == "reward"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("sft.max_tokens", "128", "sft.max_tokens = 128: must be at most base.max_tokens"),
        ("dpo.beta", "-1", "dpo.beta = -1"),
        ("orpo.beta", "0.1", "orpo, dpo: take one of them"),
        ("sft.peft", "prefix", "must be one of lora, dora, ia3, none"),
        ("qat.epochs", "1", "a text generator is tuned by"),
        ("sft.tokens", "0", "sft.tokens = 0"),
    ],
)
def test_what_a_recipe_cannot_mean(key: str, value: str, says: str, folder: Path) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_recipe(folder / "recipe.toml", {key: value})
    assert "\n" not in str(caught.value)


def test_pairs_without_a_method_are_refused(folder: Path) -> None:
    text = (folder / "recipe.toml").read_text()
    (folder / "lonely.toml").write_text(text[: text.index("[dpo]")])
    with pytest.raises(InputError, match="name them together with one of"):
        read_recipe(folder / "lonely.toml")
    other = text.replace("text-generation", "text-classification").replace("96", "128")
    (folder / "other.toml").write_text(other)
    with pytest.raises(InputError, match="instructions: for text generators; text-classification has"):
        read_recipe(folder / "other.toml")


def test_sections_that_would_do_nothing_are_refused(folder: Path) -> None:
    text = (folder / "recipe.toml").read_text()
    (folder / "idle.toml").write_text(
        text.replace("[instructions]\n", "").replace(f'name = "{folder}/rows.jsonl"\n', "")
    )
    with pytest.raises(InputError, match=r"sft: does nothing without \[instructions\]"):
        read_recipe(folder / "idle.toml")
    with pytest.raises(InputError, match=r"reward: does nothing without \[ppo\]"):
        read_recipe(folder / "recipe.toml", {"reward.epochs": "2"})


@pytest.mark.parametrize(
    ("key", "value"), [("epochs", "0"), ("learning_rate", "-1"), ("seed", "-1"), ("max_tokens", "3")]
)
def test_a_reward_that_cannot_learn_is_refused_before_anything_starts(
    key: str, value: str, folder: Path
) -> None:
    text = (folder / "recipe.toml").read_text()
    (folder / "early.toml").write_text(text[: text.index("[dpo]")] + PPO.format(encoder="none"))
    assert read_recipe(folder / "early.toml").reward.config.prompt_tokens == 16
    with pytest.raises(InputError, match=f"reward.{key} = {value}"):
        read_recipe(folder / "early.toml", {f"reward.{key}": value})
