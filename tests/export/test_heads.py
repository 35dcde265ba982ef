"""Readers and encoders through both exporters: the same answers as their checkpoints on every engine."""

import json
import shutil

import numpy as np
import pytest

from export.variants import export_variant, open_variant
from runtimes import engines
from runtimes.engines.torch import head_of
from runtimes.tasks import answer, embed
from runtimes.text import Tokenizer

LENGTHS = (16, 32)
VARIANTS = {
    "onnx-fp32": None,
    "onnx-int8": "onnx-fp32",
    "tflite-fp32": None,
    "tflite-dynamic_wi8_afp32": "tflite-fp32",
}
PASSAGES = ["oil prices rise. opec ministers meet.", "wheat and corn exports rise in the harbour " * 5]
LIMITS = {"max_tokens": 32, "max_chars": 10_000, "max_batch": 8}


@pytest.fixture(scope="module", params=["BertForQuestionAnswering", "BertModel"])
def folder(request, tiny_base, tmp_path_factory):
    """A checkpoint folder of random weights with the head."""
    import torch
    import transformers

    out = tmp_path_factory.mktemp("heads") / request.param
    torch.manual_seed(1)
    getattr(transformers, request.param).from_pretrained(tiny_base).save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_base / name, out)
    return out


def answers(folder, session):
    tokenizer = Tokenizer.from_bytes((folder / "tokenizer.json").read_bytes(), LIMITS["max_tokens"])
    if "Answering" in folder.name:
        model = answer.open(session, tokenizer, [], LIMITS, {})
        asked = model.prepare([("who meets?", passage) for passage in PASSAGES])
        assert len(asked.windows) > 2
        return np.concatenate(model.run(asked))
    return embed.open(session, tokenizer, [], LIMITS, {})(PASSAGES)


@pytest.mark.slow
def test_every_engine_answers_like_the_checkpoint(folder, tmp_path):
    want = answers(folder, engines.module("torch").open(folder, threads=1, variant={}))
    for name, parent in VARIANTS.items():
        export_variant(name, folder, tmp_path / parent if parent else None, LENGTHS, tmp_path / name)
        variant = open_variant(name, tmp_path / name)
        session = engines.module(variant.engine).open(variant.path, threads=1, variant=variant.entry())
        found = answers(folder, session)
        assert found.shape == want.shape
        np.testing.assert_allclose(
            found, want, atol=1e-4 if name.endswith("fp32") and "wi8" not in name else 0.08
        )


def test_an_unknown_head_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ValueError, match="BertForMaskedLM"):
        head_of(tmp_path)
