"""Every baseline finds what anybody would see, gives a score for each point, and takes awkward series."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from browsers import lacking

from trainers.detection_metrics import vus
from trainers.detectors import autocorrelation, detectors, period_of, window_of
from trainers.series import Series

FITTED = ("sub-pca", "sub-pca-centred", "sub-pca-whole", "isolation-forest")
CAUSAL = ("z-score", "sub-pca", "isolation-forest")


def waves(channels: int = 1, points: int = 1200, seed: int = 0) -> Series:
    """Waves with a stretch of noise at 900 … 940 in the first channel."""
    generator = np.random.default_rng(seed)
    values = np.sin(np.arange(points)[:, None] * 2 * np.pi / 30 + np.arange(channels))
    values = values + 0.05 * generator.normal(size=values.shape)
    labels = np.zeros(points, bool)
    labels[900:940] = True
    values[labels, 0] += generator.normal(size=labels.sum())
    names = tuple(f"c{i}" for i in range(channels))
    return Series("waves", "waves", np.arange(points) * 60.0, values, names, labels, points // 2, 60.0)


def found(name: str, series: Series) -> float:
    scores = detectors()[name](series)
    assert scores.shape == (len(series),)
    assert np.isfinite(scores).all()
    assert series.labels is not None
    test = slice(series.train_end, None)
    return vus(series.labels[test], scores[test], 40)[0]


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", FITTED)
def test_they_find_a_stretch_of_noise(name: str, channels: int) -> None:
    series = waves(channels)
    assert found(name, series) > 0.6
    assert found("random", series) < 0.25


def test_the_moving_z_score_finds_a_spike() -> None:
    series = waves()
    series.values[700] += 8
    assert np.argmax(detectors()["z-score"](series)) == 700


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_ones_do_not_look_ahead(name: str) -> None:
    series = waves(2)
    before = detectors()[name](series)
    series.values[1000:] = 50
    after = detectors()[name](series)
    assert np.abs(after[:1000] - before[:1000]).max() < 1e-6


@pytest.mark.parametrize("name", [*FITTED, "z-score", "random"])
def test_missing_values_and_constant_channels_are_no_trouble(name: str) -> None:
    series = waves(3)
    series.values[:, 1] = 7.0
    series.values[100:160, 2] = np.nan
    series.values[:3] = np.nan
    assert found(name, series) > 0


@pytest.mark.slow
def test_the_matrix_profile_is_that_of_the_definition() -> None:
    """In a process without numba's compiler, which would take longer than all tests here."""
    if find_spec("stumpy") is None:
        lacking("stumpy is not installed; it comes with the extra dev")
    code = """
import sys
sys.path[:0] = ["tests/trainers", "tests/support"]
import numpy as np, warnings
warnings.simplefilter("ignore")
from test_detectors import waves
from trainers.detectors import detectors, window_of
series = waves(points=220)
series.values[150:165] = 0.3
scores = detectors()["matrix-profile"](series)
window = window_of(series)
rows = np.lib.stride_tricks.sliding_window_view(series.values[:, 0], window)
rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
far = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(2))
near = np.abs(np.subtract.outer(np.arange(len(rows)), np.arange(len(rows)))) <= np.ceil(window / 4)
far[near] = np.inf
start = (window - 1) // 2
error = np.abs(scores[start : start + len(rows)] - far.min(1))
print(error[:110].max() < 1e-4, 135 < np.argmax(scores) < 180, len(scores) == 220)
"""
    command = [sys.executable, "-c", code]
    environment = {"NUMBA_DISABLE_JIT": "1", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr[-2000:]


def test_the_period_is_that_of_the_wave() -> None:
    assert window_of(waves()) == pytest.approx(30, abs=1)
    noise = np.random.default_rng(0).normal(size=3000)
    assert period_of(noise) == 0
    daily = np.sin(np.arange(2000) * 2 * np.pi / 288) + 0.1 * noise[:2000]
    assert period_of(daily) == pytest.approx(288, abs=3)
    assert period_of(np.zeros(500)) == 0


def test_the_autocorrelation_is_that_of_the_definition() -> None:
    values = np.random.default_rng(2).normal(size=80).cumsum()
    centred = values - values.mean()
    slow = [(centred[: 80 - lag] * centred[lag:]).sum() / (centred**2).sum() for lag in range(31)]
    assert autocorrelation(values, 30) == pytest.approx(np.array(slow))
