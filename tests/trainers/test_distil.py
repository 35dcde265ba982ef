from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtimes.errors import InputError
from trainers import fit as fit_module
from trainers.checkpoint import Checkpoint, open_checkpoint, seal
from trainers.data import Dataset
from trainers.distil import DistilConfig, distil, distil_loss, evenly_spaced, student_from
from trainers.finetune import TrainConfig, finetune

SAME = {"epochs": 4, "batch_size": 16, "learning_rate": 3e-3, "max_tokens": 24, "precision": "fp32"}
QUICK = DistilConfig(layers=2, save_every=4, **SAME)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def teacher(base: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    config = TrainConfig(**SAME)  # type: ignore[arg-type]
    return finetune(dataset, base, tmp_path_factory.mktemp("run") / "teacher", config)


def test_the_student_is_smaller_and_nearly_as_good(
    teacher: Checkpoint, dataset: Dataset, tmp_path: Path
) -> None:
    student = distil(teacher, teacher, dataset, tmp_path / "student", QUICK)
    size = [(c.path / "model.safetensors").stat().st_size for c in (teacher, student)]
    assert size[1] < 0.75 * size[0]
    metrics = [c.meta["metrics"]["test"]["accuracy"] for c in (teacher, student)]
    assert metrics[1] > metrics[0] - 0.1
    assert metrics[0] > 0.8
    assert student.meta["metrics"]["training"]["kept_layers"] == [0, 3]
    step = student.meta["lineage"][-1]
    assert (step["step"], step["teacher"], step["parent"]) == ("distil", teacher.digest, teacher.digest)
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(student.path)
    assert len(model.bert.encoder.layer) == model.config.num_hidden_layers == 2


def test_student_starts_from_the_kept_layers(teacher: Checkpoint) -> None:
    import torch

    from trainers.model import open_model

    whole, (student, kept) = open_model(teacher.path), student_from(teacher, 3)
    assert kept.layers == [0, 1, 3]
    for mine, theirs in zip(student.bert.encoder.layer, kept.layers, strict=True):
        for a, b in zip(mine.parameters(), whole.bert.encoder.layer[theirs].parameters(), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(student.classifier.weight, whole.classifier.weight)
    with pytest.raises(InputError, match=r"distil\.layers = 5: .* has 4"):
        student_from(teacher, 5)


@pytest.mark.parametrize(
    ("chosen", "total", "kept"),
    [
        (1, 6, [5]),
        (2, 6, [0, 5]),
        (3, 6, [0, 2, 5]),
        (4, 6, [0, 1, 3, 5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (3, 12, [0, 5, 11]),
    ],
)
def test_evenly_spaced(chosen: int, total: int, kept: list[int]) -> None:
    assert evenly_spaced(chosen, total) == kept


def test_another_family_is_refused(teacher: Checkpoint, tmp_path: Path) -> None:
    import transformers

    shape = transformers.GPT2Config(
        vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=16, num_labels=3
    )
    transformers.GPT2ForSequenceClassification(shape).save_pretrained(tmp_path)
    other = seal(tmp_path, {**teacher.meta, "lineage": []})
    with pytest.raises(
        InputError, match="gpt2 cannot be made smaller; supported: bert, roberta, electra, distilbert"
    ):
        student_from(other, 1)


@pytest.mark.parametrize("family", ["distilbert", "roberta", "electra"])
def test_other_supported_families(teacher: Checkpoint, tmp_path: Path, family: str) -> None:
    import transformers

    shape = {"vocab_size": 30, "num_labels": 3, "max_position_embeddings": 20}
    if family == "distilbert":
        config = transformers.DistilBertConfig(dim=8, hidden_dim=16, n_layers=4, n_heads=2, **shape)
    else:
        kind = {"roberta": transformers.RobertaConfig, "electra": transformers.ElectraConfig}[family]
        size = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
        config = kind(**size, **({"embedding_size": 8} if family == "electra" else {}), **shape)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    model, kept = student_from(seal(tmp_path, {**teacher.meta, "lineage": []}), 2)
    assert kept.layers == [0, 3]
    model.save_pretrained(tmp_path / "student")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())


def test_loss_by_hand() -> None:
    """One row, two classes, T = 2: against the formula written out."""
    import torch

    from trainers.tasks import task_of

    states = [torch.zeros(1, 3, 2), torch.tensor([[[3.0, 0.0]] * 3])]
    output = type("Output", (), {"logits": torch.tensor([[1.0, 0.0]]), "hidden_states": states})
    batch = {
        "labels": torch.tensor([1]), "teacher_logits": torch.tensor([[0.0, 4.0]]),
        "teacher_states": torch.tensor([[[0.0, 5.0]]]),
    }  # fmt: skip
    loss, _ = distil_loss(
        DistilConfig(alpha=0.75, temperature=2.0, hidden_weight=0.5), task_of("text-classification")
    )(lambda **_: output, batch)
    p = np.exp([0.0, 2.0]) / np.exp([0.0, 2.0]).sum()
    q = np.exp([0.5, 0.0]) / np.exp([0.5, 0.0]).sum()
    hard = np.log(np.exp([1.0, 0.0]).sum())
    wanted = 0.75 * 4 * (p * np.log(p / q)).sum() + 0.25 * hard + 0.5 * 2.0  # 2.0: orthogonal unit vectors
    assert loss.item() == pytest.approx(wanted, abs=1e-5)


def test_each_reads_with_its_own_tokenizer(teacher: Checkpoint, dataset: Dataset, tmp_path: Path) -> None:
    """A start with half the vocabulary, renumbered: only each model's own token ids fit it."""
    import json

    import torch
    from tokenizers import Tokenizer

    from trainers.model import open_model, save_model

    made = json.loads(Tokenizer.from_file(str(teacher.path / "tokenizer.json")).to_str())
    old = made["model"]["vocab"]
    kept = [word for word in old if word.startswith("[")] + [word for word in sorted(old) if word[0] == "w"][
        ::-1
    ][:150]
    made["model"]["vocab"] = {word: i for i, word in enumerate(kept)}
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "tokenizer.json").write_text(json.dumps(made))
    model = open_model(teacher.path)
    rows = torch.tensor([old[word] for word in kept])
    model.resize_token_embeddings(len(kept))
    model.bert.embeddings.word_embeddings.weight.data = open_model(
        teacher.path
    ).bert.embeddings.word_embeddings.weight.data[rows]
    start_path = tmp_path / "start"
    start_path.mkdir()
    save_model(model, tmp_path / "tok", start_path, 24)
    start = seal(start_path, {k: v for k, v in teacher.meta.items() if k not in ("schema", "digest")})
    student = distil(teacher, start, dataset, tmp_path / "student", QUICK)
    assert student.meta["metrics"]["test"]["accuracy"] > 0.7
    assert Tokenizer.from_file(str(student.path / "tokenizer.json")).get_vocab_size() == len(kept)
    assert student.meta["lineage"][-1]["parent"] == start.digest


def test_killed_and_resumed_is_as_if_never_killed(
    teacher: Checkpoint, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = distil(teacher, teacher, dataset, tmp_path / "whole", QUICK)
    original = fit_module._Flow.on_step_end

    def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        original(self, args, state, control, **kwargs)
        if state.global_step == 19:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit_module._Flow, "on_step_end", on_step_end)
        distil(teacher, teacher, dataset, tmp_path / "student", QUICK)
    with monkeypatch.context() as patch:  # the teacher's answers are not asked for again
        patch.setattr("trainers.distil._ask", lambda *_: pytest.fail("asked again"))
        resumed = distil(teacher, teacher, dataset, tmp_path / "student", QUICK)
    assert resumed.digest == whole.digest == open_checkpoint(tmp_path / "student").digest


@pytest.mark.parametrize(("change", "message"), [
    ({"layers": 0}, "layers must be 1 or more"), ({"temperature": 0.0}, "temperature"),
    ({"alpha": 1.5}, "alpha"),
    ({"hidden_weight": -1.0}, "hidden_weight"), ({"epochs": 0}, r"distil\.epochs"),
])  # fmt: skip
def test_bad_config(
    teacher: Checkpoint, dataset: Dataset, tmp_path: Path, change: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        distil(teacher, teacher, dataset, tmp_path / "student", replace(QUICK, **change))


def test_labels_must_agree(teacher: Checkpoint, dataset: Dataset, tmp_path: Path) -> None:
    other = replace(dataset, label_names=["a", "b", "c"])
    with pytest.raises(InputError, match="different labels"):
        distil(teacher, teacher, other, tmp_path / "student", QUICK)
