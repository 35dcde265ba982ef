"""Each variant answers like the checkpoint it was made from; what cannot be made is one clear line."""

import json

import numpy as np
import pytest

from export.variant import CALIBRATED, DEFAULT, KNOWN
from export.variants import export_variant, open_variant
from runtimes import engines
from runtimes.errors import InputError
from runtimes.load import load
from runtimes.text import Tokenizer, pad

EXTRA = [name for name in KNOWN if name not in DEFAULT and KNOWN[name][0] != "executorch"]
# Smallest agreement with the checkpoint's labels, largest error of a logit: a 32-dimensional model is hard
# to quantize, and the tolerances say by how much each precision may differ.
TOLERANCE = {
    "fp32": 1e-4,
    "fp16": 0.02,
    "wi8": 0.1,
    "weight_only_wi8_afp32": 0.1,
    "int8": 0.3,
    "dynamic_wi8_afp32": 0.3,
    "int4": 1.5,
    "dynamic_wi4_afp32": 1.5,
    "mixed": 1.5,
    "static_int8": 0.5,
    "static_wi8_ai8": 0.5,
    "full_int8": 3.0,
}


@pytest.fixture(scope="module")
def questions(tiny_checkpoint, tiny_data):
    """Token ids of the test rows, and the checkpoint's logits (n, labels)."""
    texts = tiny_data.splits["test"].texts[:60]
    limits = tiny_checkpoint.limits
    tokenizer = Tokenizer.from_bytes(
        (tiny_checkpoint.path / "tokenizer.json").read_bytes(), limits["max_tokens"]
    )
    return tokenizer.encode(texts), load(tiny_checkpoint.path, threads=1).logits(texts)


def answers(variant, ids):
    about = {**variant.entry(), "file": variant.path.name}
    session = engines.module(variant.engine).open(variant.path, 1, about, allow_fallback=True)
    rows = []
    for one in ids:
        fits = [length for length in session.lengths or [len(one)] if length >= len(one)]
        rows.append(session.run(pad([one], fits[0], 0))["logits"])
    return np.concatenate(rows)


@pytest.mark.parametrize("name", [*DEFAULT, *EXTRA])
def test_it_answers_like_the_checkpoint(name, questions, tiny_variants, tiny_extra):
    ids, want = questions
    variant = tiny_variants[name] if name in DEFAULT else tiny_extra(name)
    got = answers(variant, ids)
    assert got.shape == want.shape and got.dtype == np.float32
    assert np.abs(got - want).max() <= TOLERANCE[variant.precision]
    assert (got.argmax(1) == want.argmax(1)).mean() >= 0.95


@pytest.mark.parametrize("name", [name for name in [*DEFAULT, *EXTRA] if "fp32" not in KNOWN[name][1][:4]])
def test_it_is_not_the_fp32_graph_under_another_name(name, questions, tiny_variants, tiny_extra):
    ids, want = questions
    variant = tiny_variants[name] if name in DEFAULT else tiny_extra(name)
    assert np.abs(answers(variant, ids) - want).max() > 1e-6


def test_the_defaults_are_the_four_of_old():
    assert DEFAULT == ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic_wi8_afp32")
    assert set(DEFAULT) < set(KNOWN) and set(KNOWN) > CALIBRATED


def test_an_unknown_variant_is_named(tiny_checkpoint, tmp_path):
    with pytest.raises(InputError, match="'onnx-int3' is not one of onnx-fp32"):
        export_variant("onnx-int3", tiny_checkpoint.path, None, [8], tmp_path / "x")


def test_a_parent_that_is_missing_is_named(tiny_checkpoint, tmp_path):
    with pytest.raises(InputError, match="onnx-int4 is quantized from onnx-fp32; make that first"):
        export_variant("onnx-int4", tiny_checkpoint.path, None, [8], tmp_path / "x")


def test_a_graph_that_is_none_is_one_line(tiny_checkpoint, tmp_path):
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "model.onnx").write_bytes(b"no graph")
    (tmp_path / "parent" / "details.json").write_text("{}")
    with pytest.raises(InputError, match=r"onnx_int4 failed: \S+") as caught:
        export_variant("onnx-int4", tiny_checkpoint.path, tmp_path / "parent", [8], tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_what_was_written_opens_again(tiny_extra):
    made = tiny_extra("tflite-fp16")
    again = open_variant("tflite-fp16", made.path.parent)
    assert again == made and json.dumps(again.entry())
