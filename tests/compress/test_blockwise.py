import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compress.blockwise import block_size, pack_nibbles, quantize_blocks, quantize_products, quantize_tables


def dequantized(codes, scales, bits, width):
    values = (codes.astype(np.float32) - (1 << (bits - 1))) * scales[..., None]
    return values.reshape(len(codes), -1)[:, :width]


@pytest.mark.parametrize("bits,worst", [(8, 1 / 254), (4, 1 / 8)])
def test_no_weight_is_further_off_than_a_step(bits, worst):
    weight = np.random.default_rng(0).normal(size=(7, 48)).astype(np.float32)
    codes, scales = quantize_blocks(weight, bits, 16)
    assert codes.shape == (7, 3, 16) and scales.shape == (7, 3)
    largest = np.abs(weight.reshape(7, 3, 16)).max(-1).repeat(16, axis=1)
    error = np.abs(dequantized(codes, scales, bits, 48) - weight)
    # In 4 bits the scale of least squared error may cut off the extreme: up to 30 % of it.
    assert (error <= largest * (worst if bits == 8 else 0.31) + 1e-6).all()


def test_the_searched_scale_is_never_worse_than_the_extreme():
    weight = np.random.default_rng(1).standard_t(3, size=(64, 64)).astype(np.float32)
    codes, scales = quantize_blocks(weight, 4, 32)
    searched = ((dequantized(codes, scales, 4, 64) - weight) ** 2).sum()
    blocks = weight.reshape(64, 2, 32)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1) / -8
    plain = np.clip(np.rint(blocks / extreme), -8, 7) * extreme
    assert searched < ((plain - blocks) ** 2).sum()


@given(arrays.arrays(np.float32, (3, 20), elements=st.floats(-1e4, 1e4, width=32)), st.sampled_from([4, 8]))
def test_any_weights_give_finite_scales_and_codes_in_range(weight, bits):
    codes, scales = quantize_blocks(weight, bits, 16)
    assert np.isfinite(scales).all() and (scales != 0).all()
    assert codes.max() < 1 << bits and codes.shape == (3, 2, 16)


@pytest.mark.parametrize("width,most,size", [(384, 128, 128), (384, 64, 64), (312, 64, 32), (48, 64, 16)])
def test_a_block_divides_the_width_where_it_can(width, most, size):
    assert block_size(width, most) == size


def test_nibbles_the_first_one_low():
    assert pack_nibbles(np.array([[1, 2, 15, 0]], np.uint8)).tolist() == [[0x21, 0x0F]]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("width", [32, 48, 40])
def test_the_engine_reads_the_layout(bits, width):
    """MatMulNBits and GatherBlockQuantized give what the codes and scales say, padded blocks and all."""
    onnx = pytest.importorskip("onnx")
    import onnxruntime

    from compress.graph import constants

    rng = np.random.default_rng(2)
    table = rng.normal(size=(11, width)).astype(np.float32)
    weight = rng.normal(size=(width, 5)).astype(np.float32)
    make = onnx.helper
    nodes = [
        make.make_node("Gather", ["table", "ids"], ["read"], "gather"),
        make.make_node("MatMul", ["read", "weight"], ["out"], "product"),
    ]
    graph = make.make_graph(
        nodes,
        "g",
        [make.make_tensor_value_info("ids", onnx.TensorProto.INT64, [1, "n"])],
        [make.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(table, "table"), onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=10)
    quantize_tables(model, {"gather": bits})
    quantize_products(model, {"product": bits})
    assert {node.op_type for node in model.graph.node} == (
        {"GatherBlockQuantized", "MatMulNBits"} if width % 16 == 0 else {"Gather", "MatMulNBits"}
    )
    assert not {"weight"} & set(constants(model))
    size = block_size(width, 64)
    if width % 16 == 0:
        table = dequantized(*quantize_blocks(table, bits, size), bits, width)
    weight = dequantized(*quantize_blocks(weight.T, bits, size), bits, width).T
    ids = np.array([[0, 10, 3, 3]])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"ids": ids})
    # The kernel quantizes activations to int8 in blocks.
    assert np.abs(got - table[ids] @ weight).max() < 0.02 * np.abs(table[ids] @ weight).max() + 0.05
