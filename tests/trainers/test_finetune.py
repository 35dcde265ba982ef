"""Fine-tuning of a tiny model: it learns, resumes, keeps the figures honest."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtimes.errors import InputError
from runtimes.text import Tokenizer
from trainers import fit as fit_module
from trainers.checkpoint import Checkpoint, open_checkpoint
from trainers.data import Dataset, Split, save_data
from trainers.evaluate import evaluate, predict
from trainers.finetune import TrainConfig, finetune, refresh, work_folder
from trainers.fit import LengthGrouped, cross_entropy, encode, stale

QUICK = TrainConfig(
    epochs=4, batch_size=16, learning_rate=3e-3, max_tokens=24, precision="fp32", patience=0, save_every=4
)


@pytest.fixture(scope="module")
def trained(base: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return finetune(dataset, base, tmp_path_factory.mktemp("run") / "model", QUICK)


def test_it_learns_and_says_so(trained: Checkpoint, dataset: Dataset, base: Path) -> None:
    metrics = trained.meta["metrics"]
    assert metrics["test"]["accuracy"] > 0.8
    assert metrics["test"]["n"] == 45
    assert metrics["training"]["rows"] == 192
    again = evaluate(trained, dataset.splits["test"])
    assert again == metrics["test"]
    assert trained.labels == dataset.label_names
    assert trained.limits["max_tokens"] == 24
    base_step, step = trained.meta["lineage"]
    assert base_step["step"] == "base"
    assert step["parent"] == base_step["digest"]
    assert step["config"]["learning_rate"] == 3e-3
    assert not work_folder(trained.path).exists()
    texts = json.dumps(trained.meta)
    assert not any(text in texts for text in dataset.splits["test"].texts)


def test_from_pretrained_opens_it_and_agrees(trained: Checkpoint, dataset: Dataset) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(trained.path)
    tokenizer = AutoTokenizer.from_pretrained(trained.path)
    texts = dataset.splits["test"].texts[:8]
    with torch.inference_mode():
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        logits = model(**inputs).logits.numpy()
    assert model.config.id2label == dict(enumerate(dataset.label_names))
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    assert tokenizer.model_max_length == 24
    np.testing.assert_allclose(predict(trained, texts), logits, atol=1e-5)


def test_tokens_come_from_the_device_code(trained: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_bytes((trained.path / "tokenizer.json").read_bytes(), 24)
    dirty, plain = "<p>w1&nbsp;w2</p>\n w3 &amp;", "w1 w2 w3 &"
    assert encode(tokenizer, [dirty]) == encode(tokenizer, [plain])
    asked: list[str] = []
    original = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: asked.extend(texts) or original(self, texts))
    assert np.array_equal(predict(trained, [dirty]), predict(trained, [plain]))
    assert asked == [dirty, plain]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = fit_module._Flow.on_step_end

    def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        original(self, args, state, control, **kwargs)
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit_module._Flow, "on_step_end", on_step_end)


@pytest.mark.parametrize(("killed_at", "goes_on_from"), [(5, 4), (13, 12), (19, 16), (47, 44)])
def test_killed_and_resumed_is_as_if_never_killed(
    trained: Checkpoint, base: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    killed_at: int, goes_on_from: int,
) -> None:  # fmt: skip
    """12 steps an epoch, a resume point every 4: within an epoch, and at its end."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, killed_at)
        finetune(dataset, base, tmp_path / "model", QUICK)
    assert not (tmp_path / "model").exists()
    seen: list[int] = []
    original = fit_module._Flow.on_train_begin

    def on_train_begin(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        seen.append(state.global_step)
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(fit_module._Flow, "on_train_begin", on_train_begin)
    resumed = finetune(dataset, base, tmp_path / "model", QUICK)
    assert seen == [goes_on_from]
    assert resumed.digest == trained.digest


def test_a_cut_off_resume_point_is_dropped(
    trained: Checkpoint, base: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 17)
        finetune(dataset, base, out, QUICK)
    last = max(work_folder(out).glob("checkpoint-*"), key=lambda point: int(point.name.split("-")[1]))
    (last / "trainer_state.json").unlink()
    (last / "model.safetensors").write_bytes(b"half")
    assert finetune(dataset, base, out, QUICK).digest == trained.digest


def test_another_config_does_not_resume(base: Path, dataset: Dataset, tmp_path: Path) -> None:
    work = tmp_path / "work"
    fit_module.same_job(work, {"a": 1})
    (work / "checkpoint-1").mkdir()
    (work / "checkpoint-1" / "trainer_state.json").write_text('{"log_history": [], "global_step": 1}')
    fit_module.same_job(work, {"a": 1})
    assert (work / "checkpoint-1").exists()
    fit_module.same_job(work, {"a": 2})
    assert not (work / "checkpoint-1").exists()


def test_early_stopping_survives_a_kill(
    base: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A learning rate of nothing: validation never gets better, so it stops after 1 + patience epochs.
    config = replace(QUICK, epochs=6, patience=1, learning_rate=1e-12, warmup=0.0)
    whole = finetune(dataset, base, tmp_path / "whole", config)
    assert whole.meta["metrics"]["training"]["steps"] == 24
    assert whole.meta["metrics"]["training"]["best_step"] == 12

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainers.model.save_model", killed)
        finetune(dataset, base, tmp_path / "model", config)
    with monkeypatch.context() as patch:  # training was over: it must not go on
        stop_after(patch, 25)
        resumed = finetune(dataset, base, tmp_path / "model", config)
    assert resumed.digest == whole.digest


def test_stale() -> None:
    def history(*values: float) -> list[dict]:
        return [{"loss": 1.0}, *({"eval_macro_f1": v} for v in values)]

    assert not stale(history(), TrainConfig(patience=1))
    assert not stale(history(0.5, 0.6), TrainConfig(patience=1))
    assert stale(history(0.6, 0.6), TrainConfig(patience=1))
    assert not stale(history(0.6, 0.5, 0.7), TrainConfig(patience=2))
    assert not stale(history(0.6, 0.5, 0.4), TrainConfig(patience=0))


def test_order_follows_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 203).tolist()
    order = LengthGrouped(lengths, 8, 0)
    first = list(order)
    assert sorted(first) == list(range(203))
    assert list(order) == first
    order.epoch = 1
    assert list(order) != first
    assert list(LengthGrouped(lengths, 8, 1)) != first
    spread = [np.ptp([lengths[i] for i in first[k : k + 8]]) for k in range(0, 200, 8)]
    assert np.mean(spread) < 0.3 * np.ptp(lengths)


def test_accumulated_small_batches_equal_one_large(base: Path, dataset: Dataset, tmp_path: Path) -> None:
    """Without dropout, 2 batches of 8 added up give what one of 16 gives."""
    import shutil

    still = tmp_path / "still"
    shutil.copytree(base, still)
    config = json.loads((still / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(config))
    # One batch an epoch, so that both runs see the same rows whatever their order.
    rows = {**dataset.splits, "train": dataset.splits["train"].take(range(16))}
    small = Dataset("small", dataset.label_names, rows, dataset.source)
    one = finetune(small, still, tmp_path / "one", replace(QUICK, learning_rate=1e-3))
    two = replace(QUICK, learning_rate=1e-3, batch_size=8, gradient_accumulation=2)
    split = finetune(small, still, tmp_path / "two", two)
    texts = dataset.splits["test"].texts
    assert split.meta["metrics"]["training"]["steps"] == one.meta["metrics"]["training"]["steps"] == 4
    np.testing.assert_allclose(predict(one, texts), predict(split, texts), atol=1e-3)


def test_class_weights_reach_the_loss(base: Path, dataset: Dataset, tmp_path: Path) -> None:
    import torch

    class Fixed:
        def __call__(self, **inputs: object) -> object:
            return type("Output", (), {"logits": torch.tensor([[2.0, 0.0], [2.0, 0.0]])})

    batch = {"labels": torch.tensor([0, 1])}
    even, _ = cross_entropy(None)(Fixed(), batch)
    skewed, _ = cross_entropy([1.0, 3.0])(Fixed(), batch)
    wrong, right = 2.126928, 0.126928
    assert even.item() == pytest.approx((right + wrong) / 2, abs=1e-5)
    assert skewed.item() == pytest.approx((right + 3 * wrong) / 4, abs=1e-5)
    one = replace(QUICK, epochs=1)
    prepared = {**dataset.source, "prepared": {"class_weights": [0.0, 0.0, 1.0]}}
    made = finetune(replace(dataset, source=prepared), base, tmp_path / "skewed", one)
    said = predict(made, dataset.splits["test"].texts).argmax(1)
    assert (said == 2).all()  # only the third class counts


def test_bf16_on_a_cpu_saves_fp32(base: Path, dataset: Dataset, tmp_path: Path) -> None:
    from safetensors import safe_open

    made = finetune(dataset, base, tmp_path / "model", replace(QUICK, epochs=1, precision="bf16"))
    assert made.meta["metrics"]["training"]["precision"] == "bf16"
    with safe_open(made.path / "model.safetensors", "np") as file:
        names = list(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {np.dtype(np.float32)}
    assert evaluate(made, dataset.splits["test"]) == made.meta["metrics"]["test"]


def test_fp32_stays_fp32_behind_a_bf16_run(base: Path, dataset: Dataset, tmp_path: Path) -> None:
    one = replace(QUICK, epochs=1)
    before = finetune(dataset, base, tmp_path / "before", replace(one, precision="fp32"))
    finetune(dataset, base, tmp_path / "between", replace(one, precision="bf16"))
    after = finetune(dataset, base, tmp_path / "after", replace(one, precision="fp32"))
    assert before.digest == after.digest


@pytest.mark.parametrize(("change", "message"), [
    ({"epochs": 0}, "train.epochs = 0"), ({"learning_rate": 0.0}, "train.learning_rate"),
    ({"precision": "int8"}, "train.precision = 'int8'"), ({"metric": "auc"}, "train.metric"),
    ({"max_tokens": 65}, "max_tokens = 65: the model has 64 positions"), ({"max_tokens": 2}, "4 or more"),
    ({"warmup": 2.0}, "warmup"), ({"batch_size": -1}, "train.batch_size"), ({"seed": -1}, "seed"),
])  # fmt: skip
def test_bad_config(base: Path, dataset: Dataset, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        finetune(dataset, base, tmp_path / "model", replace(QUICK, **change))
    assert not any(tmp_path.iterdir())


def test_bad_base(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(InputError, match="not a model that transformers opens"):
        finetune(dataset, tmp_path / "base", tmp_path / "model", QUICK)
    with pytest.raises(InputError, match="run prepare"):
        train_only = replace(dataset, splits={"train": dataset.splits["train"]})
        finetune(train_only, tmp_path / "base", tmp_path / "model", QUICK)


def test_a_family_without_token_types(base: Path, dataset: Dataset, tmp_path: Path) -> None:
    import shutil

    import transformers

    shape = transformers.DistilBertConfig(
        vocab_size=185, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=64
    )
    transformers.DistilBertModel(shape).save_pretrained(tmp_path / "base")
    shutil.copy(base / "tokenizer.json", tmp_path / "base")
    made = finetune(dataset, tmp_path / "base", tmp_path / "model", replace(QUICK, epochs=1))
    assert made.meta["metrics"]["test"]["n"] == 45
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.path)
    assert tokenizer("w1 w2")["input_ids"] == [2, 6, 7, 3]


def test_refresh_shows_forgetting_and_drift(trained: Checkpoint, dataset: Dataset, tmp_path: Path) -> None:
    """In the new data the marks of two classes have changed places."""
    swap = {0: 1, 1: 0, 2: 2}
    turned = {
        name: Split(split.texts, [swap[label] for label in split.labels])
        for name, split in dataset.splits.items()
    }
    new = Dataset("new", dataset.label_names, turned, {"name": "new"})
    made = refresh(trained, dataset, new, tmp_path / "model", QUICK)
    report = made.meta["metrics"]["refresh"]
    assert report["old_test"]["before"]["accuracy"] == trained.meta["metrics"]["test"]["accuracy"]
    assert report["new_test"]["after"]["accuracy"] > report["new_test"]["before"]["accuracy"] + 0.2
    assert report["forgetting"] > 0.2
    assert report["drift"] > 0.3
    assert [step["step"] for step in made.meta["lineage"]] == ["base", "finetune", "finetune"]
    assert made.meta["lineage"][-1]["parent"] == trained.digest
    assert open_checkpoint(made.path) == made
    kept = refresh(trained, dataset, new, tmp_path / "replay", replace(QUICK, epochs=1), replay=0.5)
    assert kept.meta["metrics"]["training"]["rows"] == 192 + 96


def test_refresh_refuses_new_labels(trained: Checkpoint, dataset: Dataset, tmp_path: Path) -> None:
    other = Dataset("other", ["arts", "weather"], dataset.splits, {})
    with pytest.raises(InputError, match=r"label 'weather' is not one of the checkpoint's: arts, business"):
        refresh(trained, dataset, other, tmp_path / "model", QUICK)


def test_nothing_on_stdout(
    base: Path, dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    finetune(dataset, base, tmp_path / "model", replace(QUICK, epochs=1))
    out, err = capfd.readouterr()
    assert out == ""
    assert "step 12/12 validation macro_f1" in err


@pytest.mark.slow
def test_two_processes(base: Path, dataset: Dataset, tmp_path: Path) -> None:
    """`torchrun` runs the same call; one process writes, and the result is a whole checkpoint."""
    save_data(dataset, tmp_path / "data")
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from trainers.data import open_data\nfrom trainers.finetune import TrainConfig, finetune\n"
        "from trainers.distil import DistilConfig, distil\n"
        "data, base, out = open_data(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3])\n"
        "same = dict(epochs=2, batch_size=8, learning_rate=5e-3, max_tokens=24, precision='fp32')\n"
        "teacher = finetune(data, base, out / 'teacher', TrainConfig(**same))\n"
        "distil(teacher, teacher, data, out / 'student', DistilConfig(layers=2, **same))\n"
    )
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run += [str(tmp_path / "data"), str(base), str(tmp_path / "out")]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    teacher, student = (open_checkpoint(tmp_path / "out" / name) for name in ("teacher", "student"))
    assert teacher.meta["metrics"]["training"]["steps"] == 24  # 192 rows / (8 * 2 processes) * 2 epochs
    assert student.meta["metrics"]["training"]["kept_layers"] == [0, 3]
    assert done.stderr.count("step 24/24 validation") == 2
