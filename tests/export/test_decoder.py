from dataclasses import replace

import numpy as np
import onnx
import pytest

from compress.decoder import INT4, INT8, quantize_decoder, quantized
from compress.graph import constants, simplified
from export import decoder
from export.decoder import is_decoder, to_decoder
from export.variants import _quantizer
from runtimes.engines import onnx_decoder
from runtimes.errors import InputError
from runtimes.load import load

FAMILIES = ("llama", "gpt2")
IDS = np.array([[5, 60, 300, 42, 7, 120, 9, 33, 200, 11]])


def _graph(lm_bundles, family):
    return lm_bundles[family] / "variants/onnx-fp32/model.onnx"


def _opened(lm_bundles, family, graph):
    from runtimes.bundle import open_bundle

    about = open_bundle(lm_bundles[family]).variants["onnx-fp32"]
    return onnx_decoder.open(graph, 1, about)


@pytest.fixture(scope="module")
def quantized_graphs(lm_bundles, tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("quantized"), np.random.default_rng(0).integers(3, 300, (4, 64))
    np.savez(folder / "rows.npz", input_ids=rows)
    made = {}
    for family in FAMILIES:
        for name, blocks, fitted in (("int4", INT4, True), ("int8", INT8, False), ("plain", INT4, False)):
            target = folder / f"{family}-{name}.onnx"
            told = quantize_decoder(
                str(_graph(lm_bundles, family)),
                str(target),
                blocks,
                str(folder / "rows.npz") if fitted else None,
            )
            assert told["blocks"]["fitted"] == fitted and told["blocks"]["bits"] == blocks.bits
            made[family, name] = target
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_answers_as_the_checkpoint_with_and_without_its_past(lm_checkpoints, lm_bundles, family):
    wanted = load(lm_checkpoints[family], threads=1).every(IDS[0].tolist())
    cache = _opened(lm_bundles, family, _graph(lm_bundles, family)).begin()
    first = cache.forward(IDS[:, :6], every=True)[0]
    rest = [cache.forward(IDS[:, at : at + 1])[0].copy() for at in range(6, 10)]
    assert np.allclose(np.concatenate([first, rest]), wanted, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tied_matrix_is_kept_once_and_weights_lie_in_the_file(lm_bundles, quantized_graphs, family):
    for graph, least in (
        (_graph(lm_bundles, family), np.float32),
        (quantized_graphs[family, "int4"], np.uint8),
    ):
        model = onnx.load(graph)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        vocabulary = model.graph.output[0].type.tensor_type.shape.dim[2].dim_value
        large = [v for v in constants(model).values() if vocabulary in v.shape and v.size >= vocabulary * 16]
        assert [value.dtype for value in large] == [least]


@pytest.mark.parametrize("family", FAMILIES)
def test_quantized_graphs_stay_near_and_are_smaller(lm_bundles, lm_checkpoints, quantized_graphs, family):
    wanted = load(lm_checkpoints[family], threads=1).every(IDS[0].tolist())
    cosine = {}
    for name in ("int8", "int4", "plain"):
        got = _opened(lm_bundles, family, quantized_graphs[family, name]).begin().forward(IDS, every=True)[0]
        cosine[name] = float((got * wanted).sum() / np.linalg.norm(got) / np.linalg.norm(wanted))
    assert cosine["int8"] > 0.999 and cosine["int4"] > 0.95 and cosine["plain"] > 0.9
    sizes = [quantized_graphs[family, name].stat().st_size for name in ("int4", "int8")]
    assert max(sizes) < 0.7 * _graph(lm_bundles, family).stat().st_size


def test_what_llama_cpp_holds_in_four_bits_is_met(lm_bundles, tmp_path):
    """A base that comes from Q4_1, blocks of 32 with a free least weight each."""
    model = simplified(onnx.load(_graph(lm_bundles, "llama")))
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.ndim == 2 and "lm_head" not in tensor.name and "cache" not in tensor.name:
            codes = rng.integers(0, 16, (value.shape[1], value.shape[0] // 32, 32))
            codes[..., 0], codes[..., 1] = 0, 15
            scale = rng.uniform(0.01, 0.05, (*codes.shape[:2], 1))
            on_grid = (codes * scale - rng.uniform(0.1, 0.4, scale.shape)).reshape(value.shape[::-1]).T
            tensor.CopyFrom(onnx.numpy_helper.from_array(on_grid.astype(np.float32).copy(), tensor.name))
    files = {"fp32": tmp_path / "fp32.onnx"}
    onnx.save(model, files["fp32"])
    exact = replace(INT4, head_bits=8, accuracy_level=1)
    for name, blocks in (("free", exact), ("middle", replace(exact, zero="middle"))):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        files[name] = tmp_path / f"{name}.onnx"
        onnx.save(quantized(copy, blocks, {}), files[name])
    got = {
        name: _opened(lm_bundles, "llama", file).begin().forward(IDS, every=True)[0]
        for name, file in files.items()
    }
    errors = {name: np.abs(got[name] - got["fp32"]).mean() for name in ("free", "middle")}
    assert errors["free"] < 0.2 * errors["middle"]


def test_only_as_many_positions_as_the_checkpoint_reads(lm_bundles):
    known = constants(onnx.load(_graph(lm_bundles, "llama")))
    from runtimes.bundle import open_bundle

    assert len(known["cos_cache"]) == open_bundle(lm_bundles["llama"]).limits["max_tokens"]


def test_other_variants_and_larger_models_are_refused_in_a_line(lm_checkpoints, monkeypatch, tmp_path):
    with pytest.raises(
        InputError, match="onnx-wi8 cannot be made of a text generator, only onnx-fp32, onnx-int8"
    ):
        _quantizer("onnx-wi8", {"cache": {}})
    monkeypatch.setattr(decoder, "MAX_BYTES", 40_000)
    with pytest.raises(InputError, match=r"million weights make a graph over 2 GB"):
        to_decoder(str(lm_checkpoints["llama"]), str(tmp_path / "model.onnx"))
    assert not (tmp_path / "model.onnx").exists()


def test_an_encoder_is_no_decoder(tiny_base, lm_checkpoints):
    assert not is_decoder(tiny_base) and all(map(is_decoder, lm_checkpoints.values()))


def test_the_families_that_are_exported_are_those_that_are_taken():
    from export.decoder import BUILDER, OPTIMUM
    from trainers.generator import FAMILIES

    assert {*BUILDER, *OPTIMUM} == set(FAMILIES.values())
