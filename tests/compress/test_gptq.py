import numpy as np
import onnx
import pytest

from compress.gptq import gptq, moments, rounded
from compress.graph import products, simplified


def _dequantized(codes, scales, zeros):
    values = (codes.astype(np.float32) - zeros[..., None]) * scales[..., None]
    return values.reshape(len(codes), -1)


def _case():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(64, 64)) * np.linspace(0.2, 3, 64)
    inputs = (rng.normal(size=(512, 64)) @ mixed).astype(np.float32)  # correlated, as hidden states are
    return rng.normal(size=(48, 64)).astype(np.float32), inputs


@pytest.mark.parametrize("zero", ["middle", "whole", "free"])
def test_outputs_err_less_than_by_rounding_to_the_nearest(zero):
    weight, inputs = _case()
    errors = []
    for found in (gptq(weight, inputs.T @ inputs, 4, 16, zero), rounded(weight, 4, 16, zero)):
        errors.append(np.square(inputs @ (weight - _dequantized(*found)).T).sum())
    assert errors[0] < 0.8 * errors[1]


def test_weights_on_a_free_grid_are_met_exactly():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 16, (24, 4, 32))
    codes[..., 0], codes[..., 1] = 0, 15  # as llama.cpp's Q4_1: least and largest lie on the ends
    scale = rng.uniform(0.01, 0.1, (24, 4, 1))
    weight = (codes * scale - rng.uniform(0.1, 1.0, (24, 4, 1))).reshape(24, 128).astype(np.float32)
    inputs = rng.normal(size=(256, 128)).astype(np.float32)
    for found in (gptq(weight, inputs.T @ inputs, 4, 32, "free"), rounded(weight, 4, 32, "free")):
        assert np.array_equal(found[0], codes)
        assert np.abs(_dequantized(*found) - weight).max() < 1e-5


def test_a_zero_on_a_code_is_one_and_zero_itself_is_kept():
    weight, _ = _case()
    weight[:, ::7] = 0
    codes, scales, zeros = rounded(weight, 4, 16, "whole")
    assert np.array_equal(zeros, np.rint(zeros)) and zeros.min() >= 0 and zeros.max() <= 15
    assert (_dequantized(codes, scales, zeros)[:, ::7] == 0).all()


def test_inputs_that_are_never_there_and_constant_rows_are_no_fault():
    weight, inputs = _case()
    inputs[:, 5], weight[3] = 0, 0
    found = _dequantized(*gptq(weight, inputs.T @ inputs, 4, 16, "free"))
    assert np.isfinite(found).all() and (found[3] == 0).all()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_moments_are_those_of_the_model_itself(lm_checkpoints, lm_bundles, family):
    import torch

    from trainers.generator import open_generator

    graph = simplified(onnx.load(lm_bundles[family] / "variants/onnx-fp32/model.onnx"))
    found = products(graph)
    rows = [np.arange(3, 40), np.arange(90, 60, -1)]
    seen = moments(graph, found, rows)
    head = next(node for node in graph.graph.node if node.output[0] == "logits")
    model = open_generator(lm_checkpoints[family])
    told = []
    model.lm_head.register_forward_pre_hook(lambda _, inputs: told.append(inputs[0].reshape(-1, 32)))
    with torch.inference_mode():
        for row in rows:
            model(torch.from_numpy(row)[None])
    wanted = sum(states.T @ states for states in told).numpy()
    assert np.allclose(seen["kept_states"], wanted, rtol=1e-3, atol=1e-3 * wanted.max())
    assert head.name in found and len(found) == (9 if family == "gpt2" else 11)
