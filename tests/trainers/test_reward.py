import numpy as np
import pytest

from runtimes.errors import InputError
from trainers.checkpoint import open_checkpoint
from trainers.finetune import TrainConfig
from trainers.linear import train_linear
from trainers.reward import (
    RewardConfig,
    as_text,
    open_reward,
    pair_accuracy,
    train_reward,
    train_sentiment,
)

QUICK = RewardConfig(epochs=8, batch_size=16, learning_rate=3e-3, max_tokens=24, prompt_tokens=8)
ASKED = [{"role": "user", "content": "what is it"}]


def pairs(n, seed):
    """The better answer speaks of oil, the worse one of grain."""
    rng = np.random.default_rng(seed)
    words = ["the", "of", "and", "a", "in"]
    rows = []
    for _ in range(n):
        filler = " ".join(rng.choice(words, 4))
        rows.append({"prompt": ASKED, "chosen": f"{filler} oil", "rejected": f"{filler} wheat"})
    return rows


@pytest.fixture(scope="module")
def regressor(tiny_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("reward") / "reward"
    return train_reward(pairs(96, 0), pairs(40, 1), tiny_base, out, QUICK)


def test_a_reward_learns_what_is_preferred(regressor):
    test = open_checkpoint(regressor.path).meta["metrics"]["test"]
    assert test["pair_accuracy"] > 0.95 and test["pairs"] == 40
    losses = regressor.meta["metrics"]["training"]["loss"]
    assert losses[-1] < 0.2 < losses[0]


def test_a_score_does_not_depend_on_its_batch(regressor):
    reward = open_reward(regressor.path)
    rows = pairs(70, 2)
    prompts, answers = [row["prompt"] for row in rows], [row["chosen"] for row in rows]
    alone = [reward(prompts[i : i + 1], answers[i : i + 1])[0] for i in (0, 33, 69)]
    assert reward(prompts, answers)[[0, 33, 69]] == pytest.approx(alone, abs=1e-4)
    assert reward([], []).shape == (0,)


def test_of_a_long_prompt_the_end_is_read_and_of_a_long_answer_the_start(regressor):
    reward = open_reward(regressor.path)
    last = "grain in oil and the price of wheat fell"
    far = [[{"role": "user", "content": f"{word} " * 40 + last}] for word in ("ship", "interest")]
    assert reward(far, ["oil"] * 2)[0] == reward(far, ["oil"] * 2)[1]
    long = ["oil " * 60 + word for word in ("oil", "wheat")]
    assert reward([ASKED] * 2, long)[0] == reward([ASKED] * 2, long)[1]
    assert np.isfinite(reward([ASKED] * 2, ["", "x" * 50_000])).all()


def test_the_same_seed_the_same_reward(tiny_base, tmp_path):
    few = RewardConfig(epochs=1, max_tokens=24, prompt_tokens=8)
    made = [train_reward(pairs(16, 0), pairs(4, 1), tiny_base, tmp_path / name, few) for name in "ab"]
    assert made[0].digest == made[1].digest


def test_sentiment_is_the_margin_of_a_classifier(tiny_base, tmp_path):
    from trainers.data import Dataset, Split

    def split(n, seed):
        rows = pairs(n, seed)
        texts = [row[side] for row in rows for side in ("chosen", "rejected")]
        return Split(texts, [1, 0] * n)

    rows = {"train": split(80, 0), "validation": split(10, 1), "test": split(20, 2)}
    data = Dataset("tiny", ["bad", "good"], rows, {"name": "tiny"})
    how = TrainConfig(epochs=4, batch_size=16, learning_rate=3e-3, max_tokens=24, precision="fp32")
    made = train_sentiment(data, tiny_base, tmp_path / "sentiment", how)
    assert made.meta["metrics"]["test"]["pair_accuracy"] > 0.95
    reward = open_reward(made.path)
    assert reward(["the of"], ["a oil"])[0] > 0 > reward(["the of"], ["a wheat"])[0]


@pytest.mark.parametrize("paired", [False, True])
def test_words_alone_make_a_judge(tmp_path, paired):
    rows, test = pairs(40, 0), pairs(20, 1)
    chosen, rejected = ([row[side] for row in rows] for side in ("chosen", "rejected"))
    if paired:
        made = train_linear(chosen, [], tmp_path / "linear", rejected)
    else:
        made = train_linear(chosen + rejected, [1] * 40 + [0] * 40, tmp_path / "linear")
    reward = open_reward(made.path)
    assert pair_accuracy(reward, test) == 1.0
    assert reward([ASKED], ["words that no one knows"])[0] == pytest.approx(reward([ASKED], [""])[0])


def test_equal_answers_count_half():
    rows = [{"prompt": "", "chosen": "a", "rejected": "b"}] * 3
    assert pair_accuracy(lambda prompts, answers: np.zeros(len(answers)), rows) == 0.5


def test_a_conversation_as_text():
    assert as_text("as it is") == "as it is"
    assert (
        as_text([*ASKED, {"role": "assistant", "content": "this"}]) == "user: what is it\n\nassistant: this"
    )


def test_what_gives_no_reward_is_refused(tiny_base, tmp_path, regressor):
    with pytest.raises(InputError, match="no preference pairs"):
        train_reward([], pairs(1, 0), tiny_base, tmp_path / "none")
    with pytest.raises(InputError, match="no word stands in two texts"):
        train_linear(["a", "b"], [0, 1], tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_a_score_that_is_no_number_is_an_error(regressor, tmp_path):
    import shutil

    from safetensors.numpy import load_file, save_file

    from trainers.checkpoint import seal

    broken = tmp_path / "broken"
    shutil.copytree(regressor.path, broken)
    weights = load_file(broken / "model.safetensors")
    weights["classifier.bias"] = np.array([np.nan], np.float32)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    seal(broken, regressor.meta)
    with pytest.raises(InputError, match="reward of answer 0 is nan"):
        open_reward(broken)([ASKED], ["oil"])


def test_reviews_from_their_wheel_layout(tmp_path, monkeypatch):
    """The table's own columns, rows without a text left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from trainers.data import _read_columns

    table = pa.table({"Review Text": ["good", None, " ", "bad"], "Rating": [5, 3, 3, 1], "Age": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "t.parquet.brotli", compression="brotli")
    found = _read_columns(tmp_path / "t.parquet.brotli", {"text": "Review Text", "label": "Rating"})
    assert found == (["5", "1"], ["good", "bad"])


@pytest.fixture(scope="module")
def base_of_nothing(tiny_base, tmp_path_factory):
    """A base whose weights are no numbers any more."""
    import shutil

    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("nothing") / "base"
    shutil.copytree(tiny_base, folder)
    weights = {
        name: np.full_like(weight, np.nan) for name, weight in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_what_scores_nothing_does_not_stand(base_of_nothing, tiny_base, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="loss is not finite in step 1"):
        train_reward(pairs(16, 0), pairs(4, 1), base_of_nothing, tmp_path / "loss", QUICK)
    import trainers.reward as module

    def fails(checkpoint, rows):
        raise InputError("the reward of answer 0 is nan")

    monkeypatch.setattr(module, "tested", fails)
    few = RewardConfig(epochs=1, max_tokens=24, prompt_tokens=8)
    with pytest.raises(InputError, match="is nan"):
        train_reward(pairs(16, 0), pairs(4, 1), tiny_base, tmp_path / "score", few)
    assert not list(tmp_path.iterdir())


def test_a_sentiment_that_scores_nothing_does_not_stand(base_of_nothing, tmp_path):
    from trainers.data import Dataset, Split

    split = Split(["the oil", "a wheat"] * 8, [1, 0] * 8)
    data = Dataset(
        "tiny", ["bad", "good"], dict.fromkeys(("train", "validation", "test"), split), {"name": "tiny"}
    )
    how = TrainConfig(epochs=1, batch_size=16, max_tokens=24, precision="fp32")
    with pytest.raises(InputError):
        train_sentiment(data, base_of_nothing, tmp_path / "out", how)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, "reward.epochs = 0: must be 1 or more"),
        ({"prompt_tokens": 0}, "reward.prompt_tokens = 0"),
        ({"learning_rate": -1.0}, "reward.learning_rate = -1.0"),
        ({"learning_rate": 1e30}, "reward.learning_rate = 1e\\+30"),
        ({"seed": -1}, "reward.seed = -1"),
        ({"prompt_tokens": 21}, "reward.max_tokens = 24: must be 25 or more"),
        ({"max_tokens": 9999}, "positions; take fewer"),
    ],
)
def test_settings_that_cannot_work_are_one_line(change, says, tiny_base, tmp_path):
    with pytest.raises(InputError, match=says):
        train_reward(
            pairs(4, 0),
            pairs(4, 1),
            tiny_base,
            tmp_path / "out",
            RewardConfig(**{**QUICK.__dict__, **change}),
        )
    assert not list(tmp_path.iterdir())
