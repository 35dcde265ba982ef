import json
import shutil

import numpy as np
import onnx
import pytest
from tiny_generator import TEXT, make_generator

from compress.decoder import INT8, quantize_decoder
from export import gate_generator
from export.card import card
from export.gate import GENERATOR_BUDGET, Budget, check, check_budget
from export.gate_generator import nll, perplexity, prompts_of, rise, written
from export.original import of_checkpoint
from export.pack import pack
from export.variant import Variant
from runtimes.bundle import open_bundle
from runtimes.errors import GateError, InputError
from runtimes.generation import check_generation
from runtimes.load import load
from trainers.checkpoint import open_checkpoint
from trainers.generator import adopt_generator
from trainers.texts import Texts


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(TEXT.split(), 40)) for _ in range(24)]
    return Texts("made", {"train": lines[:12], "test": lines[12:]}, {"name": "made"})


@pytest.fixture(scope="module")
def made(lm_checkpoints, lm_bundles, tmp_path_factory):
    """checkpoint, fp32 and int8 variants by family."""
    found = {}
    for family, path in lm_checkpoints.items():
        bundle = open_bundle(lm_bundles[family])
        about = bundle.variants["onnx-fp32"]
        fp32 = Variant("onnx-fp32", bundle.path / about["file"], {"cache": about["cache"]})
        target = tmp_path_factory.mktemp(family) / "model.onnx"
        quantize_decoder(str(fp32.path), str(target), INT8)
        found[family] = open_checkpoint(path), fp32, Variant("onnx-int8", target, fp32.details)
    return found


@pytest.fixture(scope="module")
def packed(made, texts, tmp_path_factory):
    checkpoint, *variants = made["llama"]
    budget = Budget(min_cosine=0.99, min_agreement=0.8, max_drop=0.05, min_greedy=0.1)
    return pack(checkpoint, variants, texts, tmp_path_factory.mktemp("packed") / "lm.bundle", "lm", budget)


def test_perplexity_is_that_of_torch(lm_checkpoints):
    import torch

    from trainers.generator import open_generator

    rows = [list(range(3, 50)), list(range(90, 60, -1))]
    model, total = open_generator(lm_checkpoints["llama"]), 0.0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row])
            total += float(model(ids, labels=ids).loss) * (len(row) - 1)
    found = perplexity(load(lm_checkpoints["llama"], threads=1), rows)
    assert found["n"] == 75 and found["value"] == pytest.approx(np.exp(total / 75), rel=1e-4)


def test_equal_logits_are_worth_the_vocabulary_and_no_number_stays_none():
    assert nll(np.zeros((2, 8), np.float32), [1, 7]) == pytest.approx([np.log(8)] * 2)
    assert np.isnan(nll(np.full((1, 8), np.nan, np.float32), [0])).all()
    assert np.isnan(rise({"checkpoint": 0.0, "variant": 1.0}))
    assert rise({"checkpoint": 20.0, "variant": 21.0}) == pytest.approx(0.05)


def test_greedy_agreement_counts_up_to_the_first_difference():
    class Model:
        def continuations(self, prompts, count):
            assert prompts == ["a", "b"] and count == 4
            return [[1, 2, 3, 4], [1, 9, 3, 4]]

    told = written(Model(), ["a", "b", "c"], [[1, 2, 3, 4], [1, 2, 3, 4]])
    assert told == {"greedy": (1 + 0.25) / 2, "whole": 0.5, "tokens": 4}


def test_prompts_are_starts_of_texts_of_many_lengths():
    rows = ["one two three " * 20] * 30
    found = prompts_of(rows, 12)
    lengths = [len(one.split()) for one in found]
    assert len(found) == 12 and lengths == sorted(lengths) and lengths[0] == 6 and lengths[-1] == 32


def test_a_bundle_is_packed_with_its_figures_and_checked_again(packed, made):
    parity = json.loads((packed.path / "parity.json").read_text())
    exact, int8 = (parity["variants"][name]["sample"] for name in ("onnx-fp32", "onnx-int8"))
    assert exact["max_abs"] < 1e-3 and exact["whole"] >= 0.8 and exact["tokens"] > 16
    assert exact["metric"]["name"] == "perplexity" and abs(rise(int8["metric"])) < 0.05
    again = check(packed.path)["variants"]["onnx-int8"]["golden"]
    assert again["greedy"] >= 0.1 and "metric" not in again
    bundle = open_bundle(packed.path)
    assert {"chat_template.jinja", "tokenizer.json", "config.json"} <= set(bundle.manifest["files"])
    assert bundle.manifest["generation"]["template"]["before"]["user"].startswith("<|im_start|>user")
    card = (packed.path / "README.md").read_text()
    assert (
        "| perplexity | original's | same text |" in card and "What it writes is probable, not true" in card
    )
    checkpoint = load(made["llama"][0].path, threads=1)
    model = load(packed.path, variant="onnx-fp32", threads=1)
    assert model.continuations(["the cat"], 12) == checkpoint.continuations(["the cat"], 12)


@pytest.mark.parametrize("fault, told", [("other", "perplexity rise"), ("nan", "cosine -1.0000")])
def test_another_model_stops_it_and_nothing_is_written(made, texts, tmp_path, fault, told):
    checkpoint, fp32, int8 = made["llama"]
    model = onnx.load(int8.path)
    scales = [t for t in model.graph.initializer if t.name.endswith("_scales_fp16") and "mlp" in t.name]
    for tensor in scales:
        value = onnx.numpy_helper.to_array(tensor).copy()
        value[...] = np.nan if fault == "nan" else value[::-1] * np.float16(3)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    (tmp_path / "bad").mkdir()
    onnx.save(model, tmp_path / "bad/model.onnx")
    bad = Variant("onnx-int8", tmp_path / "bad/model.onnx", int8.details)
    with pytest.raises(GateError) as error:
        pack(checkpoint, [fp32, bad], texts, tmp_path / "lm.bundle", "lm", GENERATOR_BUDGET)
    assert error.value.exit_code == 3 and "\n" not in str(error.value)
    assert "variant onnx-int8 is not the same model" in str(error.value) and told in str(error.value)
    assert not (tmp_path / "lm.bundle").exists()


def test_a_variant_altered_afterwards_fails_the_check(packed, tmp_path):
    from runtimes.bundle import seal

    bundle = tmp_path / "lm.bundle"
    shutil.copytree(packed.path, bundle)
    budget = json.loads((bundle / "parity.json").read_text())
    budget["budget"]["min_greedy"] = 1.01  # more than any variant can reach
    (bundle / "parity.json").write_text(json.dumps(budget))
    manifest = open_bundle(packed.path).manifest
    seal(bundle, manifest, manifest["files"])
    with pytest.raises(GateError, match=r"variant onnx-fp32 .* golden greedy agreement 1.0000 under 1.01"):
        check(bundle)


def test_a_budget_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="budget.min_greedy = nan"):
        check_budget(Budget(min_greedy=float("nan")))
    assert gate_generator.TOKENS == 64


def test_a_template_that_does_not_fit_is_left_out_and_the_reason_told(packed, tmp_path, capsys):
    source = make_generator(tmp_path / "dated", positions=256)
    config = json.loads((source / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ strftime_now('%d %B') }}" + config["chat_template"]
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    original = of_checkpoint(adopt_generator(source, tmp_path / "checkpoint", 64, {"name": "dated"}))
    told = original.meta["generation"]
    check_generation(told)
    assert told["template"] is None and original.files["chat_template.jinja"].startswith(b"{{ strftime_now")
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("warning: packed without its template") and "it depends on the date" in line

    bundle = open_bundle(packed.path)
    parity = json.loads(bundle.read("parity.json"))
    assert "does not chat" not in card(bundle.manifest, parity)
    dated = card({**bundle.manifest, "generation": told}, parity)
    assert "does not chat. Chat template: it does not fit" in dated and '"role"' not in dated
