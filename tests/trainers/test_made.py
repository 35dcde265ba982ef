"""Made series: what a model that was trained beside them is good for."""

import numpy as np
import pytest

from runtimes.errors import InputError
from trainers.detector import DetectorConfig, check_config, detector_of, fitted, split
from trainers.made import LENGTH, ordinary


class One:
    """A clean cycle, as of the recipe's series."""

    values = (np.arange(1_200) / 40 % 1.0)[:, None]
    train_end = 1_200


def test_they_are_whole_and_the_same_for_a_seed():
    first, again, other = ordinary(18, 3), ordinary(18, 3), ordinary(18, 4)
    for one, two, three in zip(first, again, other, strict=True):
        assert one.shape == (LENGTH, 1) and np.isfinite(one).all() and one.std() > 0
        assert np.array_equal(one, two) and not np.array_equal(one, three)


def test_their_share_of_the_windows():
    _, alone, held = split([One], DetectorConfig())
    _, train, late = split([One], DetectorConfig(made=0.25))
    own = {row.tobytes() for row in alone}
    assert np.mean([row.tobytes() in own for row in train]) == pytest.approx(0.75, abs=0.001)
    own = {row.tobytes() for row in held}
    assert np.mean([row.tobytes() in own for row in late]) == pytest.approx(0.75, abs=0.001)
    with pytest.raises(InputError, match=r"detector.made = 1: must be from 0 to below 1"):
        check_config(DetectorConfig(made=1.0))


def test_a_model_of_one_cycle_does_not_see_cycles_in_noise():
    noise = np.random.default_rng(1).normal(50, 2, (3_000, 1))
    off = {}
    for made in (0.0, 0.5):
        config = DetectorConfig(kind="subspace", made=made)
        _, train, held = split([One], config)
        detector = detector_of(fitted(train, held, config))
        expected = detector.score(noise, detector.fit(noise[:1_500])).expected[1_500:, 0]
        off[made] = np.sqrt(np.square(expected - noise[1_500:, 0]).mean()) / 2
    assert off[0.5] < 1.2, "1 is what noise allows"
    assert off[0.0] > 1.3
