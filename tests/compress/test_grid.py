"""The grids: rounding twice changes nothing, and the engines' own quantizers agree to the last bit or so."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compress.grid import Grid, clipped, parts, rounded, row_scales, straight_through

GRIDS = [Grid(4), Grid(8), Grid(4, 16), Grid(4, 32), Grid(8, 32)]
WEIGHTS = arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 70)), elements=st.floats(-3, 3, width=32)
)


@settings(deadline=None)
@given(WEIGHTS, st.sampled_from(GRIDS))
def test_rounding_twice_changes_nothing(weight, grid):
    once = rounded(torch.tensor(weight), grid)
    torch.testing.assert_close(rounded(once, grid), once, rtol=1e-6, atol=0)


@settings(deadline=None)
@given(WEIGHTS, st.sampled_from(GRIDS))
def test_rounding_errs_by_half_a_step_at_most(weight, grid):
    """Or a whole one, where a block's second largest weight has the other sign and there is no +8."""
    weight = torch.tensor(weight)
    whole, scale = parts(weight, grid)
    step = (scale.abs().expand(whole.shape)).reshape(len(weight), -1)[:, : weight.shape[1]]
    error = (rounded(weight, grid) - weight).abs()
    assert (error <= step * (0.5 if grid.block is None else 1) * (1 + 1e-4) + 1e-12).all()
    assert len(whole.unique()) <= 2**grid.bits


def test_a_row_grid_is_what_litert_quantizer_makes():
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor as aeq

    weight = np.random.default_rng(0).normal(size=(12, 40)).astype(np.float32)
    weight[3] = 0
    for bits in (4, 8):
        low, high = weight.min(1, keepdims=True), weight.max(1, keepdims=True)
        by_row = qtyping.QuantGranularity.CHANNELWISE
        zero, scale = aeq.tensor_zp_scale_from_min_max(low, high, bits, True, by_row)
        params = qtyping.UniformQuantParams(bits, 0, scale, zero)
        want = aeq.uniform_dequantize(aeq.uniform_quantize(weight, params), params)
        got = rounded(torch.tensor(weight), Grid(bits))
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("block", [16, 32, 64])
def test_a_block_grid_is_what_onnx_runtime_quantizer_makes(block):
    from onnxruntime.capi import _pybind_state as ort

    rows, width = 12, 2 * block + 8
    weight = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    weight[3] = 0
    count = -(-width // block)
    packed, scales = np.zeros((rows, count, block // 2), np.uint8), np.zeros(rows * count, np.float32)
    zeros = np.zeros((rows, (count + 1) // 2), np.uint8)
    ort.quantize_matmul_4bits(packed, weight.T.copy(), scales, zeros, block, rows, width, True)
    whole, scale = parts(torch.tensor(weight), Grid(4, block))
    np.testing.assert_allclose(scale.numpy().ravel(), scales, rtol=1e-6)
    theirs = np.stack([packed & 15, packed >> 4], -1).reshape(rows, count, block).astype(int) - 8
    theirs[3] = 0  # times a scale of nought
    ours = whole.numpy().reshape(rows, -1)[:, :width]  # what fills up the last block does not count
    np.testing.assert_array_equal(ours, theirs.reshape(rows, -1)[:, :width])


@settings(deadline=None)
@given(WEIGHTS, st.sampled_from([4, 8]))
def test_the_scales_of_rounded_rows_are_found_again(weight, bits):
    whole, scale = parts(torch.tensor(weight), Grid(bits))
    found = row_scales((whole * scale).reshape(weight.shape).numpy(), bits)
    np.testing.assert_allclose(found, scale[:, 0].numpy(), rtol=1e-6)


def test_other_weights_have_no_row_scales():
    weight = torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    assert row_scales(weight.numpy(), 4) is None
    assert row_scales(rounded(weight, Grid(4, 16)).numpy(), 4) is None
    assert row_scales(rounded(weight, Grid(8)).numpy(), 4) is None


@pytest.mark.parametrize("grid", GRIDS)
def test_clipping_never_errs_more(grid):
    weight = torch.randn(20, 256, generator=torch.Generator().manual_seed(0))
    before, after = (rounded(one, grid) - weight for one in (weight, clipped(weight, grid)))
    assert (after.square().mean(1) <= before.square().mean(1) * (1 + 1e-6)).all()
    if grid == Grid(4):
        assert after.square().mean() < 0.9 * before.square().mean()


def test_gradients_pass_straight_through():
    weight = torch.randn(3, 8, requires_grad=True)
    way = torch.randn(3, 8)
    (straight_through(Grid(4))(weight) * way).sum().backward()
    assert torch.equal(weight.grad, way)
