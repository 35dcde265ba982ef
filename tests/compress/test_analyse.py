"""Costs by part: the sums are right, and the clocks time what they say."""

import dataclasses
import time

import pytest
import torch

from compress.analyse import AnalyseConfig, costs, time_parts
from compress.parts import parts_of
from runtimes.errors import InputError
from trainers.model import open_model

QUICK = AnalyseConfig(texts=4, rounds=3)


@pytest.fixture(scope="module")
def result(tiny_checkpoint, tiny_data):
    return costs(tiny_checkpoint, tiny_data.splits["validation"].texts, QUICK)


def test_the_sums(result, tiny_checkpoint):
    whole, model = result["whole"], open_model(tiny_checkpoint.path)
    assert whole["parameters"] == model.num_parameters() and whole["bytes"] == 4 * whole["parameters"]
    for key in ("parameters", "bytes", "flops"):
        assert sum(row["share"][key] for row in result["parts"]) == pytest.approx(1)
        assert sum(kind[key] for kind in result["kinds"]) == pytest.approx(whole[key])
    timed = sum(row["share"]["ms"] for row in result["parts"]) + result["rest"]["share"]
    assert timed == pytest.approx(1)
    assert result["sample"]["n"] == 4 and result["rounds"] == 3 and result["threads"] == 1
    assert result["hooks_ms"] == pytest.approx(whole["ms"] - whole["plain_ms"])
    assert all(row["ci95"][0] <= row["ms"] <= row["ci95"][1] for row in result["parts"])


def test_the_model_is_left_as_it_was(tiny_checkpoint):
    model, threads = open_model(tiny_checkpoint.path).eval(), torch.get_num_threads()
    time_parts(model, parts_of(model), [[2, 50, 3], [2, 50, 60, 3]], 0, QUICK)
    assert torch.get_num_threads() == threads
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_time_is_booked_to_the_part_that_took_it(tiny_checkpoint):
    """A feed-forward network that sleeps for 20 ms is 20 ms slow, and no other part is."""
    model = open_model(tiny_checkpoint.path).eval()
    inside = model.bert.encoder.layer[1].intermediate.dense
    inside.register_forward_hook(lambda *_: time.sleep(0.02))
    times = time_parts(model, parts_of(model), [[2, 50, 3]], 0, QUICK)
    slow = {name: float(value.min()) for name, value in times.parts.items()}
    assert 20 <= slow.pop("layer 1 feed-forward") < 60
    assert max(slow.values()) < 15
    assert times.plain.min() >= 20 and times.hooked.min() >= 20
    assert times.plain.shape == times.hooked.shape == (3, 1)


@pytest.mark.parametrize("key", ["texts", "rounds", "threads", "rows"])
def test_bad_values(tiny_checkpoint, key):
    with pytest.raises(InputError, match=rf"analyse\.{key} = 0"):
        costs(tiny_checkpoint, ["wheat"], dataclasses.replace(QUICK, **{key: 0}))


def test_no_texts(tiny_checkpoint):
    with pytest.raises(InputError, match="no texts to time"):
        costs(tiny_checkpoint, [], QUICK)
