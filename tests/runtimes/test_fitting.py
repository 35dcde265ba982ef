"""What is usual, where one channel wanders and the others do not."""

import numpy as np
import pytest
from tiny_detector import trained, waves

from runtimes.fitting import RARE, usual_of
from runtimes.load import load


def test_the_width_holds_for_each_half_by_what_is_usual_in_the_other():
    random = np.random.default_rng(0)
    evidence = random.normal(size=(4000, 2, 7))
    evidence[2000:, 1, 4] += 6  # the second channel's level moves
    usual = usual_of(evidence)
    assert usual[0, 4, 2] == pytest.approx(np.quantile(np.abs(evidence[:, 0, 4]), RARE) - 0.67, abs=0.3)
    assert usual[1, 4, 2] > 7 and usual[1, 3, 2] < 3
    evidence[:, 1, 4] = np.nan
    assert np.isfinite(usual_of(evidence)).all()


def test_a_channel_that_wanders_does_not_hide_what_another_does(tmp_path):
    model = load(trained(tmp_path / "made").path, threads=1)
    points = waves(3000, channels=2)
    points[:, 1] += 8 * np.sin(np.arange(3000) / 700) + np.linspace(0, 10, 3000)
    profile = model.fit(points[:2000])
    small = points[2000:].copy()
    small[500:540, 0] = 10 + 0.3 * (small[500:540, 0] - 10)  # the wave at a third of its height
    scores = [model.score(values, profile).score for values in (points[2000:], small)]
    assert (scores[0][100:] >= profile.threshold).mean() < 0.02
    assert (scores[1][500:560] >= profile.threshold).sum() >= 40
