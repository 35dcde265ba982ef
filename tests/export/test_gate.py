"""The gate fails closed, names the variant, the figure and the layer, and publishes nothing."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from export.diagnose import layer_errors
from export.gate import Budget, check, gate
from export.pack import pack, set_defaults, slim
from export.variant import Variant
from runtimes.bundle import open_bundle, seal
from runtimes.errors import BundleError, EngineError, GateError, InputError
from runtimes.load import load
from runtimes.parity import compare


def broken(variant: Variant, folder, change) -> Variant:
    """The variant with its graph changed by `change(onnx graph)`."""
    import onnx

    model = onnx.load(str(variant.path))
    change(model.graph)
    path = folder / variant.path.name
    onnx.save(model, str(path))
    return dataclasses.replace(variant, path=path)


def test_a_good_bundle_passes(tiny_bundle):
    parity = check(tiny_bundle)
    assert set(parity["variants"]) == set(open_bundle(tiny_bundle).variants)
    exact = parity["variants"]["onnx-fp32"]["golden"]
    assert exact["max_abs"] < 1e-4 and exact["agreement"] == 1


def test_parity_was_measured_on_the_test_split_too(tiny_bundle):
    parity = json.loads(open_bundle(tiny_bundle).read("parity.json"))
    for result in parity["variants"].values():
        assert result["sample"]["n"] == 120
        assert result["sample"]["metric"]["variant"] > 0.9


def test_an_impossible_budget_names_variant_figure_and_layer(tiny_bundle, tmp_path):
    slimmed = slim(tiny_bundle, ["onnx-int8", "onnx-fp32"], tmp_path / "two")
    with pytest.raises(GateError, match=r"variant onnx-int8 .*cosine .* under 1\.1.*error grows most in"):
        gate(slimmed, Budget(max_abs=1e9, min_cosine=1.1))


def test_a_ruined_layer_is_named(tiny_checkpoint, tiny_variants, tiny_data, tmp_path):
    """One layer's feed-forward weights are blown up: that very layer must be called guilty."""

    def change(graph):
        import onnx.numpy_helper as helper

        scales = {
            name.replace("_quantized", "_scale")
            for node in graph.node
            if node.op_type in ("MatMulInteger",) and "layer.1/intermediate" in node.name
            for name in node.input
            if name.endswith("_quantized")
        }
        hit = [tensor for tensor in graph.initializer if tensor.name in scales]
        assert hit, "the graph has no such weight"
        for tensor in hit:
            tensor.CopyFrom(helper.from_array(helper.to_array(tensor) * np.float32(60), tensor.name))

    ruined = broken(tiny_variants["onnx-int8"], tmp_path, change)
    out = tmp_path / "out.bundle"
    with pytest.raises(GateError, match=r"onnx-int8.*layer 1 \(feed-forward\)"):
        pack(tiny_checkpoint, [tiny_variants["onnx-fp32"], ruined], tiny_data, out, "x", Budget())
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_a_variant_of_another_model_fails(tiny_checkpoint, tiny_variants, tiny_data, tmp_path):
    def change(graph):
        import onnx.numpy_helper as helper

        for tensor in graph.initializer:
            if "classifier.bias" in tensor.name:
                tensor.CopyFrom(
                    helper.from_array(helper.to_array(tensor) + np.float32([9, 0, 0, 0]), tensor.name)
                )

    ruined = broken(tiny_variants["onnx-fp32"], tmp_path, change)
    with pytest.raises(GateError, match=r"onnx-fp32 .*max_abs 9 over 0\.001.*agreement.*accuracy drop"):
        pack(tiny_checkpoint, [ruined], tiny_data, tmp_path / "out.bundle", "x", Budget())


def test_another_tokenizer_fails(tiny_bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    text = (copy / "tokenizer.json").read_text()
    for word in ("wheat", "oil", "port", "quota", "the", "was"):
        text = text.replace(f'"{word}"', f'"{word}q"')
    (copy / "tokenizer.json").write_text(text)
    seal(copy, open_bundle_manifest(copy), open_bundle_manifest(copy)["files"])
    with pytest.raises(GateError, match="tokenizes otherwise"):
        check(copy)


def open_bundle_manifest(folder):
    return json.loads((folder / "bundle.json").read_text())


def test_a_variant_that_cannot_open_fails_the_gate(tiny_bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    manifest = open_bundle_manifest(copy)
    (copy / manifest["variants"]["tflite-fp32"]["file"]).write_bytes(b"no model")
    seal(copy, manifest, manifest["files"])
    with pytest.raises(GateError, match="tflite-fp32 cannot answer"):
        gate(copy, Budget())


def test_nan_and_shape_never_pass():
    good = np.array([[1.0, 2.0]])
    for bad in (np.array([[np.nan, 2.0]]), np.array([[1.0, 2.0, 3.0]])):
        figures = compare(good, bad, [1], [1])
        assert figures["agreement"] == 0 and figures["cosine"] == -1 and figures["max_abs"] == np.inf


def test_compare():
    same = compare(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0]]), [1], [1])
    assert same == {"max_abs": 0, "cosine": pytest.approx(1), "agreement": 1}
    flipped = compare(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[2.0, 1.0], [3.0, 0.0]]), [1, 0], [0, 0])
    assert flipped["agreement"] == 0.5 and flipped["max_abs"] == 1


def test_layer_errors_grow_from_nothing(tiny_bundle):
    errors = layer_errors(open_bundle(tiny_bundle), "onnx-int8")
    assert next(iter(errors)) == "the embeddings" and [*errors][-1] == "the head" and len(errors) == 8
    assert all(0 <= error < 0.5 for error in errors.values())


def test_slim_keeps_what_is_named(tiny_bundle, tmp_path):
    path = slim(tiny_bundle, ["onnx-int8"], tmp_path / "slim.zip")
    bundle = open_bundle(path)
    assert list(bundle.variants) == ["onnx-int8"] and bundle.defaults == {
        "*": "onnx-int8",
        "onnx": "onnx-int8",
    }
    assert (
        load(path, threads=1)("wheat").label
        == load(tiny_bundle, variant="onnx-int8", threads=1)("wheat").label
    )
    assert [file.name for file in tmp_path.iterdir()] == ["slim.zip"]
    folder = slim(tiny_bundle, [], tmp_path / "slim.bundle")
    assert list(open_bundle(folder).variants) == [open_bundle(tiny_bundle).defaults["*"]]
    with pytest.raises(EngineError, match="no variant 'x'"):
        slim(tiny_bundle, ["x"], tmp_path / "x")


def test_the_bench_sets_the_defaults(tiny_bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    bundle = set_defaults(copy, ["tflite-fp32", "onnx-int8", "tflite-dynamic_wi8_afp32", "onnx-fp32"])
    assert bundle.defaults == {"*": "tflite-fp32", "litert": "tflite-fp32", "onnx": "onnx-int8"}


def test_nothing_to_pack(tiny_checkpoint, tiny_data, tmp_path):
    with pytest.raises(InputError, match=r"export\.variants is empty"):
        pack(tiny_checkpoint, [], tiny_data, tmp_path / "x", "x", Budget())


def test_a_bundle_without_its_budget_cannot_be_checked(tiny_bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    manifest = open_bundle_manifest(copy)
    seal(copy, manifest, set(manifest["files"]) - {"parity.json"})
    with pytest.raises(BundleError, match=r"parity\.json is not in the bundle"):
        check(copy)


def test_the_card_tells_the_figures(tiny_bundle):
    card = (tiny_bundle / "README.md").read_text()
    for part in ("# tiny", "edgewise.load", "| onnx-int8 |", "Test split: accuracy", "finetune"):
        assert part in card


def test_the_card_tells_what_stayed_in_higher_precision(tiny_checkpoint, tiny_data, tiny_extra, tmp_path):
    names = ("onnx-mixed", "tflite-mixed")
    budget = Budget(max_abs=1e9, min_cosine=0.9, min_agreement=0.9, max_drop=0.1)
    mixed = []
    for name, higher in zip(names, ({"head": "int8", "layer 1 attention": "fp32"}, {}), strict=True):
        made = tiny_extra(name)
        told = {**made.details["mixed"], "higher": higher}
        mixed.append(dataclasses.replace(made, details={**made.details, "mixed": told}))
    pack(tiny_checkpoint, mixed, tiny_data, tmp_path / "mixed", "mixed", budget)
    slim(tmp_path / "mixed", ["tflite-mixed"], tmp_path / "one")
    card = (tmp_path / "mixed" / "README.md").read_text()
    assert "\n\n`onnx-mixed` is in int4 but for: head in int8, layer 1 attention in fp32. Chosen on" in card
    assert "\n\n`tflite-mixed` is in int4 but for: nothing. Chosen on" in card
    card = (tmp_path / "one" / "README.md").read_text()
    assert "tflite-mixed" in card and "onnx-mixed" not in card


def test_golden_texts_are_ones_the_checkpoint_is_sure_of(tiny_bundle):
    """A near tie flips with any rounding; the gate's agreement on golden texts would be luck."""
    golden = open_bundle(tiny_bundle).golden()
    second, best = np.sort(golden["logits"], axis=1)[:, -2:].T
    assert (best - second >= 1).all()
    assert len(golden["texts"]) >= 28
    lengths = golden["attention_mask"].sum(axis=1)
    assert lengths.max() - lengths.min() >= 5, "short and long ones"
