"""The detector's training: from series to a checkpoint that the runtime opens."""

from types import SimpleNamespace

import numpy as np
import pytest

from runtimes.load import load
from trainers.detector import DetectorConfig, train_detector

SMALL = DetectorConfig(window=32, patch=4, width=8, depth=1, heads=2, bottleneck=4, steps=60, batch=32)


def waves(points=2400, seed=0):
    random, time = np.random.default_rng(seed), np.arange(points)
    values = np.stack([np.sin(time / 4), np.cos(time / 9)], axis=1) + 0.1 * random.normal(size=(points, 2))
    return SimpleNamespace(name="waves", values=values, train_end=points, step=1.0, names=["a", "b"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return train_detector([waves()], SMALL, tmp_path_factory.mktemp("detector") / "made")


def test_a_checkpoint_opens_and_finds_a_spike(checkpoint):
    model = load(checkpoint.path, threads=1)
    profile = model.fit(waves().values, ["a", "b"], 1.0)
    seen = waves(800, seed=1).values
    seen[500, 1] += 5
    scores = model.score(seen, profile)
    over = scores.score > profile.threshold
    assert over[500] and scores.channels[500].argmax() == 1
    assert over[:500].mean() < 0.02
    assert checkpoint.meta["metrics"]["parameters"] < 10_000
