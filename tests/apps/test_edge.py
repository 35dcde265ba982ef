"""The compression ladder: its rungs share a teacher, its tables say what was measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apps.edge.plot import draw
from apps.edge.rivals import BERT, OPTIMUM, TEACHER, optimum_int8
from apps.edge.rungs import rungs
from apps.edge.tables import claims, formats, ladder, pruning
from apps.flow import plan
from apps.recipe import read_recipe
from compress.qat import QatConfig
from runtimes.load import load


def entry(rung, p50, accuracy, size, variant=None):
    about = {"rung": rung, "accuracy": accuracy, "n": 7600, "bytes": size, "tokenizer_bytes": 1_000_000}
    about |= {"variant": variant} if variant else {}
    times = {name: [base / p50, base / p50 - 0.1, base / p50 + 0.1] for name, base in
             ((BERT, 160.0), (TEACHER, 20.0), (OPTIMUM, 8.0))}  # fmt: skip
    return {**about, "latency_ms": {"p50": p50}, "times": times, "rounds": 512}


@pytest.fixture
def found():
    """Two seeds with the same times and sizes; accuracies half a point apart."""
    made = {}
    for seed in (0, 1):
        more = 0.005 * seed
        made[seed] = {"seed": seed, "device": {}, "entries": {
            BERT: entry("BERT-base", 160.0, None, 438_000_000),
            TEACHER: entry("teacher", 20.0, 0.905 + more, 91_000_000),
            OPTIMUM: entry("Optimum", 8.0, 0.904 + more, 23_000_000),
            "quantized only, onnx-int8": entry("quantized only", 4.0, 0.904 + more, 23_000_000, "onnx-int8"),
            "pruned to 50%, onnx-int8": entry("pruned to 50%", 2.0, 0.9 + more, 10_000_000, "onnx-int8"),
            "student, onnx-int8": entry("student", 0.5, 0.898 + more, 4_000_000, "onnx-int8"),
            "student, onnx-fp32": entry("student", 1.0, 0.899 + more, 16_000_000, "onnx-fp32"),
        }}  # fmt: skip
    return made


def test_the_ladder(found):
    lines = ladder(found).splitlines()
    assert len(lines) == 2 + 7
    (student,) = [line for line in lines if line.startswith("| student, onnx-int8")]
    assert "| 0.9005 (0.8980 to 0.9030) | 0.50 | 320.0 | 40.0 | 16.0 | 4.00 | 110 | 2 |" in student
    assert "BERT-base, PyTorch eager fp32 |  |" in ladder(found)  # random weights have no accuracy


def test_pruning_is_compared_with_the_same_variant_of_the_whole_model(found):
    (line,) = pruning(found).splitlines()[2:]
    assert line == "| 50% | onnx-int8 | 0.50 | 2.00 | 0.43 | 2 |"


def test_formats_of_the_teacher_as_it_is(found):
    (line,) = formats(found).splitlines()[2:]
    assert line == "| `onnx-int8` | 4.00 | 5.0 (4.9 to 5.1) | 23.0 | 0.10 |"


def test_the_claims_count_the_tokenizer(found):
    (line,) = [one for one in claims(found).splitlines() if one.startswith("| 1 | student")]
    assert "| student, onnx-int8 | +0.70 |" in line
    assert "| 320.0 (319.9 to 320.1) | 40.0 (39.9 to 40.1) | 16.0 (15.9 to 16.1) | 5.00 | 88, 4.8 |" in line


def test_the_plot(found, tmp_path):
    draw(found, tmp_path / "ladder.png")
    assert (tmp_path / "ladder.png").read_bytes()[:4] == b"\x89PNG"


def test_all_rungs_share_a_teacher(monkeypatch):
    monkeypatch.delenv("EDGEWISE_MIRROR", raising=False)
    plans = {
        name: {step.name: step.path for step in plan(one, Path("runs"))} for name, one in rungs(0).items()
    }
    assert len({steps["teacher"] for steps in plans.values()}) == 1
    assert len({steps["packed"] for steps in plans.values()}) == len(plans)
    assert plans["student"]["student"] == plans["student in 4 bits"]["student"]
    assert plans["student"]["teacher"] != next(
        step.path for step in plan(rungs(1)["student"], Path("runs")) if step.name == "teacher"
    )


def test_the_recipe_that_runs_anywhere():
    recipe = read_recipe(Path("apps/edge/recipe.toml"))
    assert recipe.distil is not None and recipe.distil.hidden_size == 256


@pytest.mark.slow
def test_optimum_is_what_its_own_classes_make_of_the_teacher(tiny_checkpoint, tiny_data, tmp_path):
    test = tiny_data.splits["test"]
    call, about = optimum_int8(tiny_checkpoint.path, tmp_path, test.texts, test.labels)
    assert about["n"] == 120 and about["accuracy"] > 0.9 and about["rung"] == "Optimum"
    assert about["bytes"] == next(tmp_path.rglob("model_quantized.onnx")).stat().st_size
    theirs, ours = call(test.texts[0]), load(tiny_checkpoint.path).logits(test.texts[:1])
    assert np.argmax(theirs) == np.argmax(ours) and not np.array_equal(theirs, ours)
    again = optimum_int8(tiny_checkpoint.path, tmp_path, [], [])[1]
    assert again == about, "kept beside the export"


@pytest.mark.slow
def test_two_bits_are_counted_on_the_real_int4_files(tiny_checkpoint, tiny_data, tmp_path, monkeypatch):
    from apps.edge import bits

    recipe = read_recipe(Path("apps/edge/recipe.toml"))
    short = replace(recipe, export=replace(recipe.export, lengths=(8, 16, 32)))
    monkeypatch.setattr(bits, "read_recipe", lambda path: short)
    rounded = bits._once(tmp_path / "ptq-2", bits._round, tiny_checkpoint, QatConfig(bits=2, max_tokens=32))
    assert rounded.meta["lineage"][-1]["step"] == "round"
    found = bits._accuracies(rounded, tiny_data.splits["test"])
    model = load(rounded.path)
    test = tiny_data.splits["test"]
    fp32 = float((model.logits(test.texts).argmax(axis=1) == np.asarray(test.labels)).mean())
    assert found.keys() == {"onnx-int4", "tflite-dynamic_wi4_afp32"}
    assert all(value == pytest.approx(fp32, abs=0.02) for value in found.values())
    assert not (tmp_path / "ptq-2-exports").exists()
