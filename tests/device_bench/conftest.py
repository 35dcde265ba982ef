"""Stand-ins for a model, and the smallest real bundle that the bench can measure."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import LABELS, LIMITS, row


@pytest.fixture
def make_row() -> Callable[..., dict[str, Any]]:
    return row


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real ONNX bundle of some hundred bytes: logits from the sum of the token ids."""
    from runtimes.bundle import seal
    from runtimes.load import load

    folder = tmp_path_factory.mktemp("bundles") / "small.bundle"
    (folder / "variants/onnx-fp32").mkdir(parents=True)
    (folder / "variants/onnx-fp32/model.onnx").write_bytes(_graph())
    (folder / "tokenizer.json").write_text(_tokenizer())
    texts = np.array(["a goal in the last minute", "the vote", "goal"])
    names = ["variants/onnx-fp32/model.onnx", "tokenizer.json"]
    manifest = {
        "schema": 1, "name": "small", "task": "text-classification", "labels": LABELS,
        "limits": LIMITS, "signature": {}, "lineage": [],
        "variants": {
            "onnx-fp32": {
                "engine": "onnx", "precision": "fp32", "file": names[0],
                "size_bytes": (folder / names[0]).stat().st_size,
            }
        },
        "defaults": {"*": "onnx-fp32", "onnx": "onnx-fp32"},
    }  # fmt: skip
    seal(folder, manifest, names)
    logits = load(folder, threads=1).logits([str(text) for text in texts])
    ids = np.ones((len(texts), 4), np.int64)
    tokens = {"input_ids": ids, "attention_mask": ids}
    np.savez(folder / "golden.npz", texts=texts, labels=np.array([0, 1, 0]), logits=logits, **tokens)
    seal(folder, manifest, [*names, "golden.npz"])
    return folder


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder: one BERT layer of random weights, with the same tokenizer and labels."""
    os.environ.setdefault("USE_TF", "0")
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=2,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(_tokenizer())
    meta = {"schema": 1, "task": "text-classification", "labels": LABELS, "limits": LIMITS}
    (folder / "checkpoint.json").write_text(json.dumps(meta))
    return folder


def _graph() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.array([[1.0, -1.0]], np.float32), "weights")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "axes"], ["sums"], keepdims=1),
        helper.make_node("Sin", ["sums"], ["waves"]),
        helper.make_node("MatMul", ["waves", "weights"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, [weights, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _tokenizer() -> str:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "goal", "in", "the", "last", "minute", "vote"]
    return json.dumps(
        {
            "version": "1.0", "added_tokens": [], "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {
                "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2],
            },
            "decoder": None, "padding": None, "truncation": None,
            "model": {
                "type": "WordLevel", "vocab": {word: index for index, word in enumerate(words)},
                "unk_token": "[UNK]",
            },
        }
    )  # fmt: skip
