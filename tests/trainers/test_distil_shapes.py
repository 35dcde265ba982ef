"""Students of other widths, taught token by token, or on texts without labels."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.data import Dataset, load_texts
from trainers.distil import DistilConfig, distil, student_from
from trainers.distil_loss import UNLABELLED, attention_loss, hard_loss, state_loss, token_losses
from trainers.finetune import TrainConfig, finetune
from trainers.model import open_model
from trainers.prepare import new_texts

SAME = {"epochs": 4, "batch_size": 16, "learning_rate": 3e-3, "max_tokens": 24, "precision": "fp32"}


@pytest.fixture(scope="module")
def teacher(base: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    config = TrainConfig(**SAME)  # type: ignore[arg-type]
    return finetune(dataset, base, tmp_path_factory.mktemp("run") / "teacher", config)


def test_a_narrow_student_starts_from_the_teachers_weights(teacher: Checkpoint) -> None:
    whole = open_model(teacher.path)
    hidden, heads = whole.config.hidden_size // 2, whole.config.num_attention_heads // 2
    student, kept = student_from(teacher, 2, hidden_size=hidden, intermediate_size=10)
    config = student.config
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (hidden, heads, 10)
    words = whole.get_input_embeddings().weight[:, kept.width]
    assert torch.equal(student.get_input_embeddings().weight, words)
    up = whole.bert.encoder.layer[kept.layers[1]].intermediate.dense.weight
    mine = student.bert.encoder.layer[1].intermediate.dense.weight
    assert torch.equal(mine, up[kept.neurons[1]][:, kept.width])


def test_a_narrow_student_learns(teacher: Checkpoint, dataset: Dataset, tmp_path: Path) -> None:
    hidden = open_model(teacher.path).config.hidden_size // 2
    config = DistilConfig(layers=1, hidden_size=hidden, **{**SAME, "epochs": 8})  # type: ignore[arg-type]
    student = distil(teacher, teacher, dataset, tmp_path / "student", config)
    sizes = [(one.path / "model.safetensors").stat().st_size for one in (teacher, student)]
    assert sizes[1] < 0.5 * sizes[0]
    metrics = [one.meta["metrics"]["test"]["accuracy"] for one in (teacher, student)]
    assert metrics[1] > metrics[0] - 0.15 and metrics[0] > 0.8


@pytest.mark.parametrize("change", [{"state_weight": 1.0}, {"attention_weight": 1.0}])
def test_token_by_token(
    teacher: Checkpoint, dataset: Dataset, tmp_path: Path, change: dict[str, float]
) -> None:
    """The student comes nearer to what it is compared with than one that only sees logits."""
    plain = DistilConfig(layers=2, hidden_weight=0.0, **SAME)  # type: ignore[arg-type]
    made = [
        distil(teacher, teacher, dataset, tmp_path / str(number), config)
        for number, config in enumerate([plain, dataclasses.replace(plain, **change)])
    ]
    ids = torch.tensor([[2, 5, 6, 7, 8, 3]])
    whole = open_model(teacher.path).eval()
    whole.set_attn_implementation("eager")
    want = whole(input_ids=ids, output_hidden_states=True, output_attentions=True)
    config = DistilConfig(layers=2, **{"state_weight": 0.0, "attention_weight": 0.0, **change})
    apart = []
    for one in made:
        model = open_model(one.path).eval()
        model.set_attn_implementation("eager")
        got = model(input_ids=ids, output_hidden_states=True, output_attentions=True)
        apart.append(float(token_losses(config, got, want, [1, 4], None, torch.ones_like(ids))))
    assert apart[1] < 0.8 * apart[0]


def test_token_losses_by_hand() -> None:
    """Two tokens, the second one padding: it does not count."""
    mask = torch.tensor([[1, 0]])
    mine, theirs = torch.tensor([[[3.0, 0.0], [9.0, 9.0]]]), torch.tensor([[[0.0, 5.0], [0.0, 1.0]]])
    assert float(state_loss(mine, theirs, mask)) == pytest.approx(2.0)
    a = torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]])
    b = torch.tensor([[[[0.9, 0.1], [0.0, 1.0]]]])
    want = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert float(attention_loss(a, b, mask)) == pytest.approx(want, rel=1e-4)
    assert float(attention_loss(a.repeat(1, 4, 1, 1), b, mask)) == pytest.approx(want, rel=1e-4)


def test_rows_without_a_label_teach_by_the_teacher_alone() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 9.0]])
    labelled = hard_loss(logits[:1], torch.tensor([0]), None)
    assert float(hard_loss(logits, torch.tensor([0, UNLABELLED]), None)) == pytest.approx(float(labelled))
    assert float(hard_loss(logits, torch.tensor([UNLABELLED, UNLABELLED]), None)) == 0.0


def test_unlabelled_texts_are_taught(teacher: Checkpoint, dataset: Dataset, tmp_path: Path) -> None:
    train = dataset.splits["train"]
    few = {**dataset.splits, "train": train.take(range(24))}
    file = tmp_path / "more.csv"
    file.write_text("text\n" + "\n".join(train.texts[24:] + train.texts[:5]))
    config = DistilConfig(layers=2, unlabelled=str(file), **SAME)  # type: ignore[arg-type]
    small = dataclasses.replace(dataset, splits=few)
    runs = {"with": config, "without": dataclasses.replace(config, unlabelled=None)}
    made = {name: distil(teacher, teacher, small, tmp_path / name, one) for name, one in runs.items()}
    accuracy = {name: one.meta["metrics"]["test"]["accuracy"] for name, one in made.items()}
    assert accuracy["with"] > accuracy["without"] - 0.02
    steps = {name: one.meta["metrics"]["training"]["steps"] for name, one in made.items()}
    assert steps["with"] > 3 * steps["without"]


def test_new_texts_stand_in_no_split(dataset: Dataset) -> None:
    known = [split.texts[0] for split in dataset.splits.values()]
    assert new_texts(dataset, [*known, "a  new one", "a new one", ""], 10, 0) == ["a new one"]
    many = [f"text {number}" for number in range(50)]
    chosen = new_texts(dataset, many, 7, 1)
    assert len(chosen) == 7 and chosen == sorted(chosen, key=many.index)
    assert chosen == new_texts(dataset, many, 7, 1) != new_texts(dataset, many, 7, 2)


def test_load_texts_needs_no_labels(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text("text\nfirst\nsecond\n")
    assert load_texts(file) == ["first", "second"]
    with pytest.raises(InputError, match="no column 'body'; the columns are: text"):
        load_texts(file, text="body")
    with pytest.raises(InputError, match="nowhere"):
        load_texts(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(("change", "message"), [
    ({"hidden_size": 10_000}, "take no more than that"), ({"hidden_size": 0}, r"hidden_size = 0"),
    ({"hidden_size": 7}, "must be a multiple of"), ({"intermediate_size": -1}, r"intermediate_size = -1"),
    ({"state_weight": -0.1}, "must not be below 0"), ({"unlabelled": "nowhere.csv"}, "nowhere.csv"),
])  # fmt: skip
def test_bad_values(
    teacher: Checkpoint, dataset: Dataset, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    config = DistilConfig(**{"layers": 1, **SAME, **change})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        distil(teacher, teacher, dataset, tmp_path / "student", config)
    assert np.all([not one.name.startswith("student") for one in tmp_path.iterdir()])
