"""Neurons that are taken out of a detector are gone, and what they did is what was worth least."""

import numpy as np
import pytest
import torch
from tiny_monitor import values

from compress.prune_detector import (
    DetectorPruneConfig,
    check_slim,
    importance,
    kept_neurons,
    prune_detector,
    without,
)
from runtimes.errors import InputError
from runtimes.load import load
from trainers.detector import DetectorConfig, gather, open_detector, train_detector
from trainers.series import Series

CONFIG = DetectorPruneConfig(keep=0.25, steps=20, batch=32)


@pytest.fixture(scope="module")
def series():
    points = values(1_500)
    times = np.arange(1_500) * 60.0
    return [Series("tiny", "tiny", times, points, ("load", "warmth"), None, 1_200, 60.0)]


@pytest.fixture(scope="module")
def checkpoint(series, tmp_path_factory):
    config = DetectorConfig("transformer", 32, 8, width=16, depth=2, steps=60)
    return train_detector(series, config, tmp_path_factory.mktemp("whole") / "checkpoint")


def test_the_neurons_are_gone_from_the_file(checkpoint, series, tmp_path):
    made = prune_detector(checkpoint, checkpoint, series, tmp_path / "slim", CONFIG)
    model = open_detector(made.path)
    assert sum(model.config.inner) == 16 and sum(layer.inner for layer in model.layers) == 16
    bytes_of = [(one.path / "model.safetensors").stat().st_size for one in (checkpoint, made)]
    assert bytes_of[1] < bytes_of[0] - 48 * 33 * 4 * 0.9  # 48 neurons of 33 weights
    assert [step["step"] for step in made.meta["lineage"]] == ["train_detector", "prune_detector"]
    assert load(made.path, threads=1).outputs([np.zeros(32, np.float32)])[0].shape == (40,)
    again = prune_detector(checkpoint, checkpoint, series, tmp_path / "again", CONFIG)
    assert again.digest == made.digest


def test_what_adds_nothing_goes_first_and_changes_nothing(checkpoint, series):
    """Neurons whose way out is 0 have no importance; without them the model answers the very same."""
    model = open_detector(checkpoint.path)
    dead = [3, 5, 8, 13]
    with torch.no_grad():
        for layer in model.layers:
            layer.down.weight[:, dead] = 0
    windows = gather([series[0].train], DetectorConfig("transformer", 32, 8))
    found = importance(model, windows, CONFIG)
    assert all((one[dead] == 0).all() and (np.delete(one, dead) > 0).mean() > 0.7 for one in found)
    model.eval()
    rows = torch.from_numpy(windows[:50, :32])
    small = without(model, [np.setdiff1d(np.arange(32), dead)] * 2)
    with torch.inference_mode():
        torch.testing.assert_close(small(values=rows).expected, model(values=rows).expected)


def test_a_layer_may_lose_its_whole_feed_forward(checkpoint):
    model = open_detector(checkpoint.path)
    small = without(model, [np.array([], int), np.array([1, 2])])
    assert small.config.inner == [0, 2]
    assert small(values=torch.zeros(1, 32)).expected.shape == (1, 40)


def test_the_best_of_all_layers_are_kept():
    kept = kept_neurons([np.array([5.0, 1.0, 4.0]), np.array([0.5, 3.0])], 0.6)
    assert [one.tolist() for one in kept] == [[0, 2], [1]]
    assert [one.tolist() for one in kept_neurons([np.array([5.0]), np.array([1.0])], 0.5)] == [[0], []]


def test_what_cannot_be_pruned_is_one_line(series, tmp_path):
    line = train_detector(series, DetectorConfig("subspace", 32, 8), tmp_path / "line")
    with pytest.raises(InputError, match=r"a line has no neurons to take out; leave \[slim\] out"):
        prune_detector(line, line, series, tmp_path / "slim", CONFIG)
    for wrong in ({"keep": 1.0}, {"keep": -0.1}, {"steps": 0}, {"learning_rate": 0.0}, {"seed": -1}):
        with pytest.raises(InputError, match="slim"):
            check_slim(DetectorPruneConfig(**wrong))
