"""The reader: places of answers in windows, training, calibration, silence where nothing is to be found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_news import FILLER

from compress.prune import PruneConfig, prune
from compress.qat import QatConfig, quantization_aware
from runtimes.errors import InputError
from runtimes.load import load
from runtimes.text import Tokenizer
from trainers import reader
from trainers.checkpoint import open_checkpoint
from trainers.distil import DistilConfig, distil
from trainers.finetune import TrainConfig
from trainers.reader import DEFAULTS, exact_windows, place, readings, train_reader, window_rows
from trainers.squad import Question, QuestionSet, with_impossible

CONFIG = replace(DEFAULTS, epochs=12, max_tokens=32, learning_rate=3e-3, precision="fp32", patience=3)


def questions(count, seed, most=30):
    """The answer is the one number in the passage; a third has none."""
    random, found = np.random.default_rng(seed), []
    for n in range(count):
        words = list(random.choice(sorted(FILLER), size=random.integers(4, most)))
        answers = ()
        if n % 3:
            place = int(random.integers(len(words)))
            words[place] = str(random.integers(10))
            answers = ((len(" ".join(words[:place])) + bool(place), words[place]),)
        found.append(Question(str(n), f"article {n % 7}", "how many ?", " ".join(words), answers))
    return found


@pytest.fixture(scope="module")
def asked():
    splits = {"train": questions(300, 0), "validation": questions(60, 1), "test": questions(90, 2, 60)}
    return QuestionSet("numbers", splits, {"name": "numbers"})


@pytest.fixture(scope="module")
def checkpoint(tiny_base, asked, tmp_path_factory):
    return train_reader(asked, tiny_base, tmp_path_factory.mktemp("reader") / "reader", CONFIG)


@pytest.mark.slow
def test_it_learns_to_read_and_to_be_silent(checkpoint, asked):
    test = checkpoint.meta["metrics"]["test"]
    assert test["n"] == 90 and test["answerable"]["exact_match"] > 0.8
    assert test["unanswerable"]["exact_match"] > 0.8
    assert test["always"]["n"] == 60 and test["always"]["exact_match"] >= test["answerable"]["exact_match"]
    assert checkpoint.task == "question-answering" and checkpoint.labels == ["start", "end"]


@pytest.mark.slow
def test_confidence_and_offsets_of_the_saved_model(checkpoint, asked):
    before = torch.get_num_threads()
    found = readings(load(checkpoint.path, threads=before + 1), asked.splits["test"])
    assert torch.get_num_threads() == before  # another number would change the next training's result
    for one, question in zip(found, asked.splits["test"], strict=True):
        assert question.context[one.start : one.end] == one.text
    confidence = np.array([one.confidence for one in found])
    some = np.array([bool(one.answers) for one in asked.splits["test"]])
    assert confidence[some].mean() > 0.7 and confidence[~some].mean() < 0.3


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_alike(checkpoint, asked, tiny_base, tmp_path, monkeypatch):
    def killed(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reader, "_write", killed)
        train_reader(asked, tiny_base, tmp_path / "reader", CONFIG)
    again = train_reader(asked, tiny_base, tmp_path / "reader", CONFIG)
    assert again.digest == checkpoint.digest and not (tmp_path / ".reader.work").exists()
    assert open_checkpoint(tmp_path / "reader").meta["lineage"][-1]["step"] == "finetune"


def test_places_of_answers(tiny_base):
    tokenizer = Tokenizer.from_bytes((tiny_base / "tokenizer.json").read_bytes(), 16)
    asked = Question("1", "t", "how ?", "oil oil wheat 7 corn " + "oil " * 30, ((14, "7"),))
    rows = window_rows([asked], tokenizer)
    first, *rest = rows.labels
    assert first[0] == first[1] > 4 and set(rest) == {(0, 0)}
    assert rows.ids[0][first[0]] == tokenizer.encode(["7"])[0][1] and len(rows) > 2
    assert place(tokenizer.windows("how ?", "oil", 4, 8)[0], Question("1", "", "?", "oil", ())) == (0, 0)


def test_exact_windows():
    logits = np.zeros((2, 5, 2))
    logits[0, 3], logits[1, 2, 0], logits[1, 4, 1] = 1, 1, 1
    assert exact_windows(logits, np.array([[3, 3], [2, 3]])) == {"exact": 0.5}


def test_what_is_refused(tiny_base, tmp_path):
    rows = questions(6, 0)
    with pytest.raises(InputError, match="no test questions"):
        train_reader(QuestionSet("x", {"train": rows, "validation": rows}), tiny_base, tmp_path / "x")
    whole = QuestionSet("x", {"train": rows, "validation": rows, "test": rows})
    with pytest.raises(InputError, match="a reader's is exact"):
        train_reader(whole, tiny_base, tmp_path / "x", TrainConfig())
    with pytest.raises(InputError, match="64 positions"):
        train_reader(whole, tiny_base, tmp_path / "x", replace(DEFAULTS, max_tokens=128))
    assert len(with_impossible(rows, 0.0)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("weights", [{}, {"state_weight": 1.0, "attention_weight": 1.0}])
def test_a_student_learns_from_its_teacher(checkpoint, asked, tmp_path, weights):
    shared = {"batch_size": 16, "max_tokens": 32, "metric": "exact", "precision": "fp32"}
    config = DistilConfig(layers=2, epochs=6, learning_rate=3e-3, alpha=1.0, **shared, **weights)
    student = distil(checkpoint, checkpoint, asked, tmp_path / "student", config)
    wanted = checkpoint.meta["metrics"]["test"]["answerable"]["exact_match"]
    assert student.meta["metrics"]["test"]["answerable"]["exact_match"] > wanted - 0.15
    assert student.meta["calibration"] and student.meta["lineage"][-1]["step"] == "distil"


@pytest.mark.slow
def test_pruned_and_rounded_readers_still_read(checkpoint, asked, tmp_path):
    shared = {"epochs": 3, "batch_size": 16, "max_tokens": 32, "learning_rate": 2e-3, "metric": "exact",
              "precision": "fp32"}  # fmt: skip
    half = prune(checkpoint, checkpoint, asked, tmp_path / "half", PruneConfig(keep=0.6, steps=1, **shared))
    rounded = quantization_aware(checkpoint, half, asked, tmp_path / "qat", QatConfig(bits=4, **shared))
    for made in (half, rounded):
        assert made.meta["metrics"]["test"]["answerable"]["exact_match"] > 0.6
        assert open_checkpoint(made.path).task == "question-answering"


def test_lessons_that_cannot_be_given(checkpoint, asked, tiny_checkpoint, tiny_data, tmp_path):
    config = DistilConfig(layers=2, metric="exact", max_tokens=32)
    with pytest.raises(InputError, match="different labels"):
        distil(checkpoint, tiny_checkpoint, asked, tmp_path / "x", config)
    with pytest.raises(InputError, match="different labels"):
        distil(checkpoint, checkpoint, tiny_data, tmp_path / "x", config)
    with pytest.raises(InputError, match="questions only"):
        distil(checkpoint, checkpoint, asked, tmp_path / "x", replace(config, unlabelled="texts.csv"))
