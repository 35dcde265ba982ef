"""The old profile stays until the new one is better; both outcomes are told and logged."""

import json
from pathlib import Path

import numpy as np
import pytest

from runtimes.errors import InputError
from trainers.detector import DetectorConfig, train_detector
from trainers.refit import Judged, choose, refit
from trainers.series import Series


def waves(points: int, seed: int, level: float = 0, size: float = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.1, (points, 2))
    places = np.arange(points)[:, None] * 2 * np.pi / np.array([24, 40])
    return level + size * (np.sin(places) + noise)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    from runtimes.load import load

    values = waves(1500, 0)
    series = Series("waves", "waves", np.arange(1500.0), values, ("a", "b"), None, 1500, 1.0)
    config = DetectorConfig(kind="subspace", window=32, patch=8)
    return load(train_detector([series], config, tmp_path_factory.mktemp("refit") / "model").path, threads=1)


@pytest.fixture(scope="module")
def profile(model):
    return model.fit(waves(1500, 1), ("a", "b"))


def test_after_a_change_the_new_profile_wins_and_is_logged(model, profile, tmp_path: Path) -> None:
    log = tmp_path / "log" / "refits.jsonl"
    done = refit(model, profile, waves(1500, 2, level=6, size=3), log, name="waves")
    assert done.kept == "new"
    assert done.profile.centre.mean() > 4
    (row,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert row == done.row
    assert (row["series"], row["kept"], row["held_out"]) == ("waves", "new", 450)
    assert row["new"]["vus_pr"] > row["old"]["vus_pr"]


def test_without_a_change_the_old_profile_stays_and_is_logged(model, profile, tmp_path: Path) -> None:
    log = tmp_path / "refits.jsonl"
    for seed in (3, 4):
        done = refit(model, profile, waves(1500, seed), log)
        assert done.kept == "old"
        assert done.profile is profile
    assert [json.loads(line)["kept"] for line in log.read_text().splitlines()] == ["old", "old"]


def test_a_fit_on_a_broken_stretch_loses(model, profile) -> None:
    values = waves(1500, 5)
    values[600:1000] = np.random.default_rng(0).normal(0, 8, (400, 2))  # no new normal: it is over by now
    spoilt = refit(model, profile, values)
    assert spoilt.kept == "old"
    assert "finds next to nothing" in spoilt.row["why"]
    told = np.zeros(1500, bool)
    told[600:1000] = True
    cleaned = refit(model, profile, values, exclude=told)
    assert cleaned.row["new"]["found"] > spoilt.row["new"]["found"]


def test_too_few_points_are_one_line(model, profile) -> None:
    with pytest.raises(InputError, match="400 points are too few; wait for 427"):
        refit(model, profile, waves(400, 6))
    with pytest.raises(InputError, match=r"give \(n, 2\)"):
        refit(model, profile, np.zeros((500, 3)))


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        (Judged(0, 0.8, 0.5), Judged(0, 0.8, 0.5), "old"),
        (Judged(0, 0.8, 0.5), Judged(0, 0.8, 0.6), "new"),
        (Judged(0.4, 0.8, 0.5), Judged(0.2, 0.8, 0.5), "new"),
        (Judged(0.4, 0.8, 0.5), Judged(0.2, 0.8, 0.4), "old"),  # quiet because it is blind
        (Judged(0, 0.8, 0.5), Judged(0, 0.2, 0.7), "old"),  # its threshold is out of reach
        (Judged(0, 0.8, 0.5), Judged(0.3, 0.9, 0.7), "old"),  # finds more because it always shouts
        (Judged(0.3, 0.8, 0.5), Judged(0.2, 0.8, 0.505), "old"),
        (Judged(0.7, 0.9, 0.5), Judged(0, 0.2, 0.495), "new"),  # the old one shouts, so it finds anything
        (Judged(0.7, 0.1, 0.5), Judged(0, 0.1, 0.6), "old"),  # both are deaf: a change is no pardon
        (Judged(0, 0.1, 0.5), Judged(0.001, 0.4, 0.6), "new"),  # a point or two are no shouting
    ],
)
def test_the_rule(old: Judged, new: Judged, kept: str) -> None:
    assert choose(old, new)[0] == kept
