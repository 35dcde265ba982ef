"""The detector's training: from series to checkpoints of every kind, which the runtime and ONNX open."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from runtimes.engines.patches import PatchConfig, PatchDetector
from runtimes.errors import InputError
from runtimes.load import load
from trainers.checkpoint import open_checkpoint
from trainers.detector import (
    DetectorConfig,
    check_config,
    covered,
    distil_detector,
    fitted,
    gather,
    new_model,
    open_detector,
    train_detector,
)

SMALL = DetectorConfig(window=32, patch=4, width=8, depth=1, heads=2, bottleneck=4, steps=60, batch=32)


def waves(points=2400, seed=0):
    random, time = np.random.default_rng(seed), np.arange(points)
    values = np.stack([np.sin(time / 4), np.cos(time / 9)], axis=1) + 0.1 * random.normal(size=(points, 2))
    return SimpleNamespace(name="waves", values=values, train_end=points, step=1.0, names=["a", "b"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("detector")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return train_detector([waves()], SMALL, folder / "made")


def test_a_checkpoint_opens_and_finds_a_spike(checkpoint):
    model = load(checkpoint.path, threads=1)
    profile = model.fit(waves().values, ["a", "b"], 1.0)
    seen = waves(800, seed=1).values
    seen[500, 1] += 5
    scores = model.score(seen, profile)
    over = scores.score > profile.threshold
    assert over[500] and scores.channels[500].argmax() == 1
    assert over[:500].mean() < 0.01
    assert checkpoint.meta["metrics"]["parameters"] < 10_000
    assert model.describe()["task"] == "anomaly-detection"


def test_the_same_seed_gives_the_same_weights(checkpoint, folder):
    assert train_detector([waves()], SMALL, folder / "again").digest == checkpoint.digest


def test_training_is_better_than_the_line_that_it_starts_from(folder):
    time = np.arange(6000)
    bent = np.sign(np.sin(time / 7)) * np.abs(np.sin(time / 7)) ** 0.3 + np.sin(time / 41) ** 3
    series = SimpleNamespace(name="bent", values=bent[:, None], train_end=6000, step=1.0, names=["a"])
    config = replace(SMALL, steps=200, width=16)
    line, made = (
        train_detector([series], replace(config, kind=kind), folder / kind).meta["metrics"]
        for kind in ("subspace", "transformer")
    )
    assert made["validation"]["forecast"] < 0.95 * line["validation"]["forecast"]
    assert line["parameters"] < made["parameters"]


def test_auto_keeps_the_better_of_both_on_injected_anomalies(folder):
    found = train_detector([waves()], replace(SMALL, kind="auto"), folder / "auto").meta["metrics"]
    measured = found["injected_auc_pr"]
    assert set(measured) == {"subspace", "transformer"} and min(measured.values()) > 0.2
    assert measured[found["kind"]] == max(measured.values())
    depth = open_detector(folder / "auto").config.depth
    assert (depth == 0) == (found["kind"] == "subspace")


def test_a_student_is_smaller_and_tells_its_teacher(checkpoint, folder):
    student = distil_detector(checkpoint, [waves()], folder / "student", replace(SMALL, width=4, heads=1))
    assert student.meta["metrics"]["parameters"] < checkpoint.meta["metrics"]["parameters"]
    steps = [step["step"] for step in open_checkpoint(student.path).meta["lineage"]]
    assert steps == ["train_detector", "distil_detector"]
    assert student.meta["lineage"][-1]["parent"] == checkpoint.digest


def test_the_line_is_the_principal_components_and_the_best_forecast():
    windows = gather([waves().values], SMALL)
    model = new_model(replace(SMALL, kind="subspace"), windows)
    past, after = windows[:, :32], windows[:, 32:]
    with torch.inference_mode():
        expected = model(values=torch.from_numpy(past)).expected.numpy()
    left = np.linalg.svd(past, compute_uv=False)[SMALL.bottleneck :]
    assert np.square(past - expected[:, :32]).sum() == pytest.approx(np.square(left).sum(), rel=1e-3)
    best = after - past @ np.linalg.lstsq(past, after, rcond=None)[0]
    assert np.square(after - expected[:, 32:]).sum() == pytest.approx(np.square(best).sum(), rel=1e-2)


def test_hidden_patches_are_whole_and_in_half_of_the_windows():
    config = replace(SMALL, masked=0.25)
    read = covered(torch.ones(2000, 36), config, np.random.default_rng(0)).numpy().reshape(2000, 8, 4)
    assert read.shape == (2000, 8, 4) and (read.min(axis=2) == read.max(axis=2)).all()
    assert (read[::2] == 1).all()
    assert (read[1::2] == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert (covered(torch.ones(9, 36), replace(SMALL, masked=0), np.random.default_rng(0)) == 1).all()


def test_masked_training_teaches_to_do_without_a_patch():
    windows = gather([waves(4000).values], SMALL)
    rows = torch.from_numpy(gather([waves(1000, seed=1).values], SMALL))
    read = rows[:, :32].clone()
    read[:, 8:12] = 0
    off = {}
    for masked in (0.0, 0.5):
        model = fitted(windows, windows[::9], replace(SMALL, masked=masked, steps=150))
        with torch.inference_mode():
            hidden, whole = model.expect(rows[:, :32], read), model.expect(rows[:, :32], rows[:, :32])
            assert torch.equal(whole, model(values=rows[:, :32]).expected)  # the graph reads all of it
        off[masked] = float((hidden - whole).abs().mean())
    assert off[0.5] < 0.7 * off[0.0]


def test_the_graph_has_one_channel_in_and_window_and_patch_out():
    model = PatchDetector(PatchConfig(window=32, patch=4, width=8, depth=2, heads=2, bottleneck=4))
    assert model(values=torch.zeros(5, 32)).expected.shape == (5, 36)
    assert sum(weight.numel() for weight in PatchDetector(PatchConfig()).parameters()) < 150_000


def test_missing_values_and_constant_channels_are_left_out_of_the_windows():
    values = waves().values
    values[:, 1] = 3.0
    values[::10, 0] = np.nan
    windows = gather([values], SMALL)
    assert len(windows) > 1000 and np.isfinite(windows).all()
    values[:] = np.nan
    with pytest.raises(InputError, match="no window"):
        gather([values], SMALL)


@pytest.mark.parametrize(
    "broken",
    [
        {"window": 33}, {"window": 8}, {"patch": 1}, {"heads": 3}, {"bottleneck": 32}, {"depth": -1},
        {"kind": "magic"}, {"steps": 0}, {"learning_rate": 0.0}, {"validation": 1.0}, {"seed": -1},
        {"masked": 1.0},
    ],
)  # fmt: skip
def test_a_config_that_cannot_work_is_told_by_its_key(broken):
    with pytest.raises(InputError, match=r"detector.*" + next(iter(broken))):
        check_config(replace(SMALL, **broken))


def test_a_folder_that_holds_no_detector_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a detector"):
        open_detector(tmp_path)
