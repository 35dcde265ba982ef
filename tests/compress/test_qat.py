"""Quantization-aware training: better than rounding afterwards, on the grid, the same on both engines."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import trainers.fit as fit_module
from compress.grid import Grid, rounded
from compress.qat import (
    QatConfig,
    fold_token_types,
    quantizable,
    quantization_aware,
    quantized,
    round_weights,
    rounded_activations,
)
from runtimes import engines
from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint, open_checkpoint, seal
from trainers.evaluate import predict_model
from trainers.model import open_model, open_tokenizer, save_model

QUICK = QatConfig(
    bits=4, epochs=2, batch_size=16, learning_rate=3e-3, max_tokens=32, precision="fp32", activations="none"
)
FEEDS = {"input_ids": np.array([[2, 60, 70, 95, 101, 88, 120, 3]]), "attention_mask": np.ones((1, 8), int)}
FEEDS["token_type_ids"] = np.zeros((1, 8), int)


def sealed(model, like: Checkpoint, out) -> Checkpoint:
    out.mkdir()
    save_model(model, like.path, out, 32)
    return seal(out, {key: value for key, value in like.meta.items() if key not in ("schema", "digest")})


@pytest.fixture(scope="session")
def lopsided(tiny_checkpoint, tmp_path_factory) -> Checkpoint:
    """The tiny checkpoint with two large columns in each attention output, paid back by small values: its
    answers are the same, and int4 rows have no room left for the other columns."""
    model, dims = open_model(tiny_checkpoint.path), [0, 8]
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.self.value.weight[dims] /= 30
            layer.attention.self.value.bias[dims] /= 30
            layer.attention.output.dense.weight[:, dims] *= 30
    return sealed(model, tiny_checkpoint, tmp_path_factory.mktemp("lopsided") / "checkpoint")


@pytest.fixture(scope="session")
def trained(lopsided, tiny_data, tmp_path_factory) -> Checkpoint:
    return quantization_aware(lopsided, lopsided, tiny_data, tmp_path_factory.mktemp("qat") / "q", QUICK)


def answers(model, checkpoint: Checkpoint, split) -> np.ndarray:
    return predict_model(model, open_tokenizer(checkpoint.path, 32), split.texts)[0]


def test_training_makes_up_for_what_rounding_afterwards_loses(lopsided, trained, tiny_checkpoint, tiny_data):
    test = tiny_data.splits["test"]
    model = open_model(lopsided.path)
    want = answers(model, lopsided, test)
    np.testing.assert_allclose(want, answers(open_model(tiny_checkpoint.path), lopsided, test), atol=1e-4)
    round_weights(model, QUICK)
    lost = answers(model, lopsided, test)
    got = answers(open_model(trained.path), trained, test)
    fp32, ptq, qat = ((one.argmax(1) == test.labels).mean() for one in (want, lost, got))
    assert fp32 > 0.95 and ptq < fp32 - 0.2 and qat > fp32 - 0.02
    assert np.abs(got - want).mean() < 0.5 * np.abs(lost - want).mean()
    assert trained.meta["metrics"]["test"]["accuracy"] == pytest.approx(qat)
    assert trained.meta["lineage"][-1]["step"] == "qat"
    assert trained.meta["lineage"][-1]["config"]["bits"] == 4


def test_saved_weights_lie_on_the_grid(trained):
    model = open_model(trained.path)
    assert len(quantizable(model)) == 3 + 3 * 6 + 2  # embeddings, layers, pooler and head
    for module in quantizable(model):
        assert all(len(row.unique()) <= 15 for row in module.weight)
        torch.testing.assert_close(rounded(module.weight, Grid(4)), module.weight, rtol=1e-6, atol=0)
    assert not model.bert.embeddings.token_type_embeddings.weight[0].any()


@pytest.mark.slow
def test_both_engines_answer_as_the_trained_model(trained, tmp_path):
    """With activations in fp32 to float error; with 8-bit ones within what that rounding does."""
    from ai_edge_quantizer import quantizer, recipe

    from export.variants import export_variant

    inputs = {key: torch.tensor(value) for key, value in FEEDS.items()}
    with torch.no_grad():
        want = open_model(trained.path).eval()(**inputs).logits.numpy()
    made = {}
    for name in ("onnx-fp32", "tflite-fp32"):
        made[name] = export_variant(name, trained.path, None, [8], tmp_path / name)
    for name, parent in (("onnx-int4", "onnx-fp32"), ("tflite-dynamic_wi4_afp32", "tflite-fp32")):
        made[name] = export_variant(name, trained.path, tmp_path / parent, [8], tmp_path / name)
        assert made[name].path.stat().st_size < 0.75 * made[parent].path.stat().st_size
    bare = tmp_path / "bare.tflite"  # the same weights, activations left alone
    result = quantizer.Quantizer(str(made["tflite-fp32"].path), recipe.weight_only_wi4_afp32()).quantize()
    result.export_model(str(bare))
    entry = made["tflite-fp32"].entry()
    assert np.abs(answer("litert", bare, entry) - want).max() < 1e-4
    # ONNX Runtime rounds activations where the operator allows it; without, nothing is lost
    graph = onnx.load(made["onnx-int4"].path)
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    onnx.save(graph, tmp_path / "bare.onnx")
    assert np.abs(answer("onnx", tmp_path / "bare.onnx", entry) - want).max() < 1e-4
    for name in ("onnx-int4", "tflite-dynamic_wi4_afp32"):
        assert np.abs(answer(made[name].engine, made[name].path, made[name].entry()) - want).max() < 0.2


def answer(engine: str, path, entry) -> np.ndarray:
    session = engines.module(engine).open(path, 1, {**entry, "file": path.name})
    return session.run(FEEDS)["logits"]


def test_int8_of_onnx_runtime_keeps_int8_weights(tiny_checkpoint, tmp_path):
    """quantize_dynamic meets weights on the int8 grid: the same whole numbers come out."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from export.variants import export_variant

    model, config = open_model(tiny_checkpoint.path), dataclasses.replace(QUICK, bits=8)
    round_weights(model, config)
    checkpoint = sealed(model, tiny_checkpoint, tmp_path / "rounded")
    made = export_variant("onnx-fp32", checkpoint.path, None, [8], tmp_path / "onnx")
    quantize_dynamic(made.path, tmp_path / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    stored = {
        one.name: numpy_helper.to_array(one) for one in onnx.load(tmp_path / "int8.onnx").graph.initializer
    }
    kernels = [name.removesuffix("_quantized") for name in stored if name.startswith("onnx::MatMul")]
    weights = [(stored[n + "_quantized"] * stored[n + "_scale"]).T for n in kernels if n + "_scale" in stored]
    linear = [one.weight.detach().numpy() for one in quantizable(model)]
    assert len(weights) == 3 * 6
    for weight in weights:
        assert any(
            weight.shape == one.shape and np.allclose(weight, one, rtol=1e-5, atol=1e-7) for one in linear
        )


def test_within_the_model_answers_as_afterwards(tiny_checkpoint):
    model = open_model(tiny_checkpoint.path).eval()
    inputs = {key: torch.tensor(value) for key, value in FEEDS.items()}
    names = set(model.state_dict())
    with torch.no_grad(), quantized(model, QUICK):
        within = model(**inputs).logits
    assert set(model.state_dict()) == names
    assert torch.equal(model(**inputs).logits, within)


def test_folding_the_token_types_changes_no_answer(tiny_checkpoint):
    model = open_model(tiny_checkpoint.path).eval()
    inputs = {key: torch.tensor(value) for key, value in FEEDS.items()}
    for types in (inputs["token_type_ids"], 1 - inputs["token_type_ids"]):
        before = model(**{**inputs, "token_type_ids": types}).logits
        fold_token_types(model)
        after = model(**{**inputs, "token_type_ids": types}).logits
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_activations_have_256_levels_with_nought_among_them():
    values = torch.randn(4, 5, 300, generator=torch.Generator().manual_seed(0), requires_grad=True)
    near = rounded_activations(values)
    assert all(len(row.round(decimals=5).unique()) <= 256 for row in near.view(-1, 300))
    span = values.amax(-1, keepdim=True) - values.amin(-1, keepdim=True)
    assert ((near - values).abs() <= span / 255).all()
    assert torch.equal(rounded_activations(torch.zeros(2, 3)), torch.zeros(2, 3))
    near.sum().backward()
    assert torch.equal(values.grad, torch.ones_like(values))


def test_dynamic_activations_and_blocks(lopsided, tiny_data, tmp_path):
    """The other grid, with inputs rounded as well; nothing of that is left in the saved model."""
    config = dataclasses.replace(QUICK, block=16, activations="dynamic", epochs=1)
    made = quantization_aware(lopsided, lopsided, tiny_data, tmp_path / "q", config)
    model = open_model(made.path)
    for module in quantizable(model):
        torch.testing.assert_close(rounded(module.weight, Grid(4, 16)), module.weight, rtol=1e-6, atol=0)
        assert not module._forward_pre_hooks
    assert made.meta["metrics"]["test"]["accuracy"] > 0.9


def test_killed_and_resumed_is_as_if_never_killed(lopsided, trained, tiny_data, tmp_path, monkeypatch):
    original = fit_module._Flow.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        if state.global_step == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit_module._Flow, "on_step_end", on_step_end)
        quantization_aware(lopsided, lopsided, tiny_data, tmp_path / "q", QUICK)
    assert (tmp_path / ".q.work").is_dir()
    resumed = quantization_aware(lopsided, lopsided, tiny_data, tmp_path / "q", QUICK)
    assert resumed.digest == trained.digest == open_checkpoint(tmp_path / "q").digest
    assert not (tmp_path / ".q.work").exists()


@pytest.mark.parametrize(("change", "message"), [
    ({"bits": 3}, r"qat\.bits = 3: must be 2, 4 or 8"), ({"block": 10}, r"qat\.block = 10"),
    ({"activations": "static"}, "must be none or dynamic"), ({"epochs": 0}, r"qat\.epochs"),
    ({"alpha": 2.0}, "qat: .*alpha 0 to 1"), ({"learning_rate": 0.0}, r"qat\.learning_rate"),
])  # fmt: skip
def test_bad_values(tiny_checkpoint, tiny_data, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        config = dataclasses.replace(QUICK, **change)
        quantization_aware(tiny_checkpoint, tiny_checkpoint, tiny_data, tmp_path / "q", config)


def test_labels_must_agree(tiny_checkpoint, tiny_data, tmp_path):
    other = dataclasses.replace(tiny_data, label_names=["a", "b", "c", "d"])
    with pytest.raises(InputError, match="different labels"):
        quantization_aware(tiny_checkpoint, tiny_checkpoint, other, tmp_path / "q", QUICK)
