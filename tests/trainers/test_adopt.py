"""A model that was trained elsewhere, saved by transformers alone, becomes a checkpoint."""

import json
import shutil

import pytest
import torch

from runtimes.errors import InputError
from runtimes.load import load
from trainers.adopt import adopt, open_or_adopt
from trainers.checkpoint import open_checkpoint


@pytest.fixture
def foreign(tiny_checkpoint, tmp_path):
    """The tiny classifier as somebody else would have saved it."""
    folder = tmp_path / "foreign"
    shutil.copytree(tiny_checkpoint.path, folder)
    (folder / "checkpoint.json").unlink()
    return folder


def test_the_answers_stay(foreign, tiny_checkpoint, tmp_path):
    adopted = open_or_adopt(foreign, tmp_path)
    assert adopted.path != foreign and adopted.labels == tiny_checkpoint.labels
    want, got = (
        load(one.path, threads=1).logits(["wheat exports rise"]) for one in (tiny_checkpoint, adopted)
    )
    assert (want == got).all()
    assert adopted.meta["lineage"][0]["config"] == {"name": "foreign", "model_type": "bert"}
    assert open_or_adopt(tiny_checkpoint.path, tmp_path).path == tiny_checkpoint.path


def test_a_slow_tokenizer_and_unnamed_labels(tmp_path):
    """vocab.txt only, another family, no names for the labels."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=8, dim=16, hidden_dim=24, n_layers=1, n_heads=2, num_labels=2)
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "slow")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "wheat", "oil", "##s"]
    (tmp_path / "slow" / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "slow" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "DistilBertTokenizer", "model_max_length": 64})
    )
    adopted = adopt(tmp_path / "slow", tmp_path / "out")
    assert adopted.labels == ["0", "1"] and adopted.limits["max_tokens"] == 64
    assert load(open_checkpoint(adopted.path).path, threads=1)("wheat oils").label in ("0", "1")


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(("change", "message"), [
    (lambda folder: edit(folder, architectures=["BertModel"]), "BertModel is not a trained text classifier"),
    (lambda folder: edit(folder, problem_type="regression"), "regression is not supported"),
    (lambda folder: edit(folder, id2label={str(i): "same" for i in range(4)}), "names a label twice"),
    (lambda folder: (folder / "config.json").write_text("[]"), "not a transformers config"),
    (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), "nothing is unpickled"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"cut"), "not a model that transf"),
    (lambda folder: [f.unlink() for f in folder.glob("*token*")], "no tokenizer"),
    (lambda folder: (folder / "config.json").unlink(), "not a checkpoint"),
    (lambda folder: (folder / "tokenizer_config.json").write_bytes(b"\xff{"), "tokenizer_config"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer"),
])  # fmt: skip
def test_what_cannot_be_adopted(foreign, tmp_path, change, message):
    change(foreign)
    with pytest.raises(InputError, match=message):
        open_or_adopt(foreign, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["foreign"]
