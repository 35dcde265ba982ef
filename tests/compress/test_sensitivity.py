"""Sensitivity: what is changed is what is said, the rest is left alone, and noise is not read as signal."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.parts import matrices, parts_of
from compress.sensitivity import effect, paired_drop, plan, replaced, rounded, sensitivity, silenced
from runtimes.errors import InputError
from trainers.data import Split
from trainers.model import open_model
from trainers.shape import Kept, cut, family_of, whole


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.sampled_from([4, 8]), st.integers(0, 99))
def test_rounding_is_to_the_grid_of_each_row(rows, columns, bits, seed):
    torch.manual_seed(seed)
    weight = torch.randn(rows, columns) * torch.logspace(-3, 3, rows)[:, None]
    weight[0] *= seed % 2  # a row of noughts stays one
    found, most = rounded(weight, bits), 2 ** (bits - 1) - 1
    step = weight.abs().amax(1, keepdim=True) / most
    assert (found - weight).abs().le(step / 2 + 1e-6 * step * most).all()
    assert all(len(row.unique()) <= 2 * most + 1 for row in found)
    torch.testing.assert_close(found.abs().amax(1), weight.abs().amax(1))
    torch.testing.assert_close(rounded(found, bits), found)


def test_only_the_part_is_changed_and_all_comes_back(tiny_checkpoint):
    model = open_model(tiny_checkpoint.path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    part = next(one for one in parts_of(model) if one.name == "layer 1 attention")
    values = {name: rounded(value.detach(), 4) for name, value in matrices(model, part).items()}
    with replaced(model, values):
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == set(values) and len(moved) == 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["attention", "feed-forward"])
def test_a_silenced_network_adds_nothing(tiny_checkpoint, kind):
    model = open_model(tiny_checkpoint.path).eval()
    part = next(one for one in parts_of(model) if one.name == f"layer 1 {kind}")
    layer, states = model.bert.encoder.layer[1], torch.randn(1, 5, 32)
    with replaced(model, silenced(model, part)):
        if kind == "attention":
            found, want = layer.attention(states)[0], layer.attention.output.LayerNorm(states)
        else:
            found, want = layer.output(layer.intermediate(states), states), layer.output.LayerNorm(states)
    torch.testing.assert_close(found, want)


def test_figures_on_rows(tiny_checkpoint, tiny_data):
    split = tiny_data.splits["validation"]
    result = sensitivity(tiny_checkpoint, split, 64)
    assert result["n"] == 64 and result["baseline"]["metric"] == "accuracy"
    found = {(one["part"], one["change"]): one for one in result["effects"]}
    assert len(found) == len(result["effects"]) == 2 * 9 + 6 + 3
    for part in ("embedding", "layer 0 attention", "head", "all parts"):
        assert 0 < found[part, "int8"]["logits_error"] < found[part, "int4"]["logits_error"]
    assert found["all parts", "int4"]["logits_error"] > found["layer 0 attention", "int4"]["logits_error"]
    assert (
        found["layer 2 attention", "cut"]["logits_error"] > found["layer 2 attention", "int4"]["logits_error"]
    )
    for one in result["effects"]:
        assert one["drop"] == pytest.approx(result["baseline"]["value"] - one["accuracy"])
        assert one["se"] > 0 and one["ci95"][0] < one["ci95"][1]


def test_a_skipped_layer_is_one_that_is_not_there(tiny_checkpoint, tiny_data):
    from trainers.evaluate import predict_model
    from trainers.model import open_tokenizer

    split, model = tiny_data.splits["validation"], open_model(tiny_checkpoint.path)
    all_of_it = whole(model, family_of(model, "x"))
    kept = Kept(
        [0, 2], [all_of_it.heads[i] for i in (0, 2)], [all_of_it.neurons[i] for i in (0, 2)], all_of_it.width
    )
    logits, _ = predict_model(cut(model, kept), open_tokenizer(tiny_checkpoint.path, 32), split.texts)
    accuracy = float((logits.argmax(1) == np.array(split.labels)).mean())
    found = {e["part"]: e for e in sensitivity(tiny_checkpoint, split, 80)["effects"] if e["change"] == "cut"}
    assert found["layer 1"]["accuracy"] == pytest.approx(accuracy)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(80, 2000))
def test_the_interval_holds_the_drop_and_is_never_empty(lost, gained, n):
    drop, se, (low, high) = paired_drop(lost, gained, n)
    assert drop == pytest.approx((lost - gained) / n)
    assert low < drop < high and se > 0
    assert paired_drop(gained, lost, n)[2] == pytest.approx((-high, -low))


def test_noise_is_not_signal():
    """With no true drop, about one interval in twenty leaves out 0; a drop of 10 points is seen."""
    rng = np.random.default_rng(0)
    seen = {0.0: 0, 0.1: 0}
    for more in seen:
        for _ in range(400):
            lost, gained = rng.binomial(300, 0.05 + more), rng.binomial(300, 0.05)
            low, high = paired_drop(int(lost), int(gained), 300)[2]
            seen[more] += not low <= 0 <= high
    assert seen[0.0] < 0.08 * 400 and seen[0.1] > 0.95 * 400


def test_errors_of_logits_ignore_what_softmax_ignores(tiny_checkpoint):
    part = parts_of(open_model(tiny_checkpoint.path))[0]
    before = np.array([[1.0, -1.0], [2.0, 0.0]], np.float32)
    same = effect(part, "int8", before, before + 5, np.array([0, 0]))
    assert same.logits_error == 0 and same.agreement == 1 and not same.signal
    turned = effect(part, "int8", before, -before, np.array([0, 0]))
    assert turned.logits_error == pytest.approx(2) and turned.drop == 1 and turned.agreement == 0


def test_a_model_of_one_layer_is_not_cut_to_none(tiny_checkpoint):
    parts = [one for one in parts_of(open_model(tiny_checkpoint.path)) if one.layer in (None, 0)]
    assert "layer" not in [part.kind for part, _ in plan(parts)]


def test_too_few_rows(tiny_checkpoint):
    with pytest.raises(InputError, match="3 rows to measure sensitivity on; give at least 16"):
        sensitivity(tiny_checkpoint, Split(["a"] * 3, [0, 1, 2]), 512)
