"""Parts: everything belongs to one, and the FLOPs are those that torch counts."""

import json
import struct

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from compress import parts as module
from compress.parts import bytes_on_disk, flops, matrices, modules, parameters, parts_of, share_out
from runtimes.errors import InputError
from trainers.model import open_model
from trainers.shape import FAMILIES


def tiny(kind: str, **more):
    sizes = {"vocab_size": 50, "num_labels": 3, "max_position_embeddings": 40, **more}
    if kind == "distilbert":
        config = transformers.DistilBertConfig(dim=16, hidden_dim=24, n_layers=3, n_heads=4, **sizes)
    else:
        names = {"bert": "Bert", "roberta": "Roberta", "electra": "Electra"}
        config = getattr(transformers, f"{names[kind]}Config")(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            **({"embedding_size": 8} if kind == "electra" else {}),
            **sizes,
        )
    # Of the fused attention torch's counter sees nothing on a CPU.
    return transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")


@pytest.mark.parametrize("kind", list(FAMILIES))
def test_every_parameter_belongs_to_one_part(kind):
    model = tiny(kind)
    parts = parts_of(model)
    assert [part.kind for part in parts] == ["embedding", *["attention", "feed-forward"] * 3, "head"]
    for name, _ in model.named_parameters():
        assert len([part for part in parts if part.holds(name)]) == 1, name
    assert sum(parameters(model, part) for part in parts) == model.num_parameters()
    attention = next(part for part in parts if part.name == "layer 1 attention")
    assert len(matrices(model, attention)) == 4
    assert parameters(model, attention) == 4 * (16 * 16 + 16) + 2 * 16  # q, k, v, out; a norm
    listed = [row for part in parts for row in modules(model, part, 20)]
    assert sum(row["parameters"] for row in listed) == model.num_parameters()


@pytest.mark.parametrize("kind", list(FAMILIES))
@pytest.mark.parametrize("tokens", [1, 20])
def test_flops_are_those_that_torch_counts(kind, tokens):
    model = tiny(kind).eval()
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(5, 5 + tokens)[None])
    assert counter.get_total_flops() == sum(flops(model, part, tokens) for part in parts_of(model))


def test_flops_by_part_and_of_pruned_heads():
    model = tiny("bert").eval()
    model.bert.encoder.layer[0].attention.prune_heads({1, 2})
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(5, 25)[None])
    counted = counter.get_flop_counts()
    found = {part.name: flops(model, part, 20) for part in parts_of(model)}
    place = "BertForSequenceClassification.bert.encoder.layer.0"
    assert found["layer 0 attention"] == sum(counted[f"{place}.attention"].values())
    ours = sum(sum(counted[f"{place}.{name}"].values()) for name in ("intermediate", "output"))
    assert found["layer 0 feed-forward"] == ours
    assert found["layer 0 attention"] < found["layer 1 attention"]


def test_bytes_on_disk(tiny_checkpoint, tmp_path):
    sizes = bytes_on_disk(tiny_checkpoint.path)
    model = open_model(tiny_checkpoint.path)
    by_part, unused = share_out(parts_of(model), sizes)
    assert unused == 0
    assert all(by_part[part.name] == 4 * parameters(model, part) for part in parts_of(model))
    (file,) = tiny_checkpoint.path.glob("*.safetensors")
    assert 0 < file.stat().st_size - sum(sizes.values()) < 10_000, "the header"
    model.half().save_pretrained(tmp_path)
    assert sum(bytes_on_disk(tmp_path).values()) == sum(sizes.values()) / 2


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_a_broken_weights_file_is_one_line(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("broken") / "model.safetensors"
    file.write_bytes(content)
    try:
        bytes_on_disk(file.parent)
    except InputError as error:
        assert "not a whole safetensors file" in str(error)


_OFFSETS = ([1], [0, "x"], [8, 4], [-1, 4])


@pytest.mark.parametrize("header", [[], {"a": 3}, {"a": {}}, *({"a": {"data_offsets": o}} for o in _OFFSETS)])
def test_a_wrong_header_is_one_line(tmp_path, header):
    body = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(body)) + body)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        bytes_on_disk(tmp_path)


def test_no_weights_and_a_header_without_end(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no safetensors file"):
        bytes_on_disk(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(InputError, match="header longer than the file"):
        bytes_on_disk(tmp_path)
    monkeypatch.setattr(module, "_MAX_HEADER", 1)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    with pytest.raises(InputError, match="header longer"):
        bytes_on_disk(tmp_path)


def test_an_architecture_that_is_not_supported():
    config = transformers.AlbertConfig(vocab_size=20, hidden_size=8, num_attention_heads=2, embedding_size=8,
                                       intermediate_size=8)  # fmt: skip
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(InputError, match="somewhere: albert .*supported: bert, roberta, electra, distilbert"):
        parts_of(model, "somewhere")
