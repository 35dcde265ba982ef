"""Masks: the right weights are nought, and stay so; nothing is called smaller."""

import dataclasses
import gzip

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import masks
from compress.masks import (
    MaskConfig,
    gzip_bytes,
    is_two_of_four,
    mask_weights,
    masks_of,
    prunable,
    two_of_four,
)
from runtimes.errors import InputError
from trainers.checkpoint import open_checkpoint
from trainers.model import open_model

SAME = {"batch_size": 16, "learning_rate": 1e-3, "max_tokens": 32, "precision": "fp32"}
HALF = MaskConfig(epochs=1, **SAME)  # type: ignore[arg-type]


def weights_of(checkpoint):
    model = open_model(checkpoint.path)
    return {name: module.weight.detach() for name, module in prunable(model, "x").items()}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 5), st.floats(0.05, 0.95), st.integers(0, 99))
def test_magnitude_masks_keep_the_largest(rows, fours, sparsity, seed):
    torch.manual_seed(seed)
    weights = {"a": torch.randn(rows, 4 * fours), "b": 3 * torch.randn(8, 4)}
    flat = torch.cat([one.flatten() for one in weights.values()])
    found = masks_of(weights, MaskConfig(sparsity=sparsity, mask="global"))
    kept = torch.cat([one.flatten() for one in found.values()])
    assert int((~kept).sum()) == round(sparsity * len(flat))
    if kept.any() and not kept.all():
        assert flat[kept].abs().min() >= flat[~kept].abs().max()
    for name, keep in masks_of(weights, MaskConfig(sparsity=sparsity, mask="layer")).items():
        assert int((~keep).sum()) == round(sparsity * keep.numel())
        assert (
            not keep.any()
            or keep.all()
            or weights[name][keep].abs().min() >= weights[name][~keep].abs().max()
        )


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_two_of_four(rows, fours, seed):
    torch.manual_seed(seed)
    weight = torch.randn(rows, 4 * fours)
    keep = two_of_four(weight)
    assert is_two_of_four(weight * keep) and not is_two_of_four(weight)
    for group, kept in zip(weight.view(-1, 4), keep.view(-1, 4), strict=True):
        assert int(kept.sum()) == 2 and group[kept].abs().min() >= group[~kept].abs().max()


def test_the_score_of_movement_is_minus_weight_times_gradient():
    """Also where the mask is 0: a weight that training pulls away from 0 can come back."""
    from torch.nn.utils import parametrize

    linear = torch.nn.Linear(4, 2, bias=False)
    parametrize.register_parametrization(linear, "weight", masks._moving()(linear.weight))
    gate = linear.parametrizations.weight[0]
    gate.keep[0, 1] = False
    inputs, weight = torch.randn(3, 4), linear.parametrizations.weight.original
    for _ in range(2):
        linear(inputs).square().sum().backward()
    masked = (weight * gate.keep).detach()
    gradient = 2 * (inputs @ masked.T).T @ inputs  # of the sum of squares, by hand
    torch.testing.assert_close(gate.scores, -2 * weight.detach() * gradient)
    assert gate.scores[0, 1] != 0 and weight.grad[0, 1] == 0
    gate.scores.zero_()
    with torch.no_grad():
        linear(inputs)
    assert not gate.scores.any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", masks.KINDS)
def test_a_masked_checkpoint(tiny_checkpoint, tiny_data, tmp_path, kind):
    config = dataclasses.replace(HALF, mask=kind)
    made = mask_weights(tiny_checkpoint, tiny_data, tmp_path / "masked", config)
    before, after = weights_of(tiny_checkpoint), weights_of(made)
    zeros = sum(int((one == 0).sum()) for one in after.values())
    total = sum(one.numel() for one in after.values())
    assert zeros / total == pytest.approx(0.5, abs=0.001)
    if kind == "global":
        assert len({round(float((one == 0).float().mean()), 2) for one in after.values()}) > 1
    elif kind == "2:4":
        assert all(is_two_of_four(one) for one in after.values())
    else:
        assert all(float((one == 0).float().mean()) == pytest.approx(0.5, abs=0.01) for one in after.values())
    if kind != "movement":  # held: what was masked at the start is 0 at the end, the rest has moved
        kept = masks_of(before, config)
        assert all(not after[name][~kept[name]].any() for name in after)
        assert any((after[name] - before[name])[kept[name]].abs().max() > 1e-4 for name in after)
    rest = dict(open_model(made.path).named_parameters())
    assert not (rest["bert.embeddings.word_embeddings.weight"] == 0).float().mean() > 0.1
    assert not (rest["classifier.weight"] == 0).any()
    accuracy = [one.meta["metrics"]["test"]["accuracy"] for one in (tiny_checkpoint, made)]
    assert accuracy[1] > accuracy[0] - 0.1
    about = made.meta["metrics"]["mask"]
    assert about["is"].startswith("a mask") and about["kind"] == kind
    assert abs(about["bytes"]["after"] - about["bytes"]["before"]) < 100, "a mask shrinks no file"
    assert about["gzip_bytes"]["after"] < 0.9 * about["gzip_bytes"]["before"]
    assert about["zeros"] == zeros / total
    assert made.meta["lineage"][-1]["step"] == "mask"
    assert open_checkpoint(made.path).digest == made.digest
    left = [file.name for file in tmp_path.iterdir()]
    assert left == ["masked"], left


def test_a_killed_masking_goes_on_with_the_same_scores(tiny_checkpoint, tiny_data, tmp_path, monkeypatch):
    config = dataclasses.replace(HALF, mask="movement")
    whole = mask_weights(tiny_checkpoint, tiny_data, tmp_path / "whole", config)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(masks, "held", killed)  # behind the scores, before the recovery
        mask_weights(tiny_checkpoint, tiny_data, tmp_path / "cut", config)
    again = mask_weights(tiny_checkpoint, tiny_data, tmp_path / "cut", config)
    for name, weight in weights_of(whole).items():
        np.testing.assert_array_equal(weight, weights_of(again)[name])


def test_gzip_bytes_are_those_of_gzip(tiny_checkpoint):
    (file,) = tiny_checkpoint.path.glob("*.safetensors")
    assert gzip_bytes(tiny_checkpoint.path) == len(gzip.compress(file.read_bytes(), 9, mtime=0))


@pytest.mark.parametrize(("change", "message"), [
    ({"sparsity": 0.0}, r"mask\.sparsity = 0.0"), ({"sparsity": 1.0}, r"mask\.sparsity = 1.0"),
    ({"mask": "luck"}, "must be one of global, layer, movement, 2:4"),
    ({"mask": "2:4", "sparsity": 0.6}, "half empty; take 0.5"), ({"epochs": 0}, r"mask\.epochs"),
    ({"alpha": 2.0}, "alpha 0 to 1"),
])  # fmt: skip
def test_bad_values(tiny_checkpoint, tiny_data, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        mask_weights(tiny_checkpoint, tiny_data, tmp_path / "m", dataclasses.replace(HALF, **change))
    assert not list(tmp_path.iterdir())


def test_rows_that_no_group_of_four_fits(tiny_checkpoint):
    model = open_model(tiny_checkpoint.path)
    model.bert.encoder.layer[0].output.dense = torch.nn.Linear(6, 32)
    with pytest.raises(InputError, match=r"rows of 6, no multiple of 4; take --mask layer"):
        prunable(model, "x", "2:4")
