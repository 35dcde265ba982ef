import json

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from compress.vocabulary import VocabularyConfig, trim_vocabulary
from runtimes.errors import InputError
from runtimes.load import load
from runtimes.text import Tokenizer


def tokenizer(checkpoint):
    return Tokenizer.from_bytes((checkpoint.path / "tokenizer.json").read_bytes(), 32)


@pytest.fixture(scope="module")
def half(tiny_data):
    """Training rows of two topics only: the other topics' words fall out of the vocabulary."""
    split = tiny_data.splits["train"]
    return [text for text, label in zip(split.texts, split.labels, strict=True) if label < 2]


@pytest.fixture(scope="module")
def trimmed(tiny_checkpoint, half, tmp_path_factory):
    out = tmp_path_factory.mktemp("trim") / "trimmed"
    return trim_vocabulary(tiny_checkpoint, half, out, VocabularyConfig(size=125))


def test_the_file_shrinks_by_the_rows(tiny_checkpoint, trimmed):
    before = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint.path).config.vocab_size
    after = AutoModelForSequenceClassification.from_pretrained(trimmed.path).config.vocab_size
    sizes = [(one.path / "model.safetensors").stat().st_size for one in (tiny_checkpoint, trimmed)]
    assert after <= 125 < before
    assert sizes[0] - sizes[1] == pytest.approx((before - after) * 32 * 4, abs=64)


def test_texts_of_the_training_data_are_answered_as_before(tiny_checkpoint, trimmed, half):
    before, after = (load(one.path, threads=1).logits(half[:50]) for one in (tiny_checkpoint, trimmed))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_dropped_and_unknown_words_are_spelled_not_lost(tiny_checkpoint, trimmed):
    (ids,) = tokenizer(trimmed).encode(["vessel"])
    assert len(ids) == 2 + len("vessel")
    unknown = json.loads((trimmed.path / "tokenizer.json").read_text())["model"]["vocab"]["[UNK]"]
    assert unknown not in ids
    assert len(tokenizer(tiny_checkpoint).encode(["vessel"])[0]) == 3


def test_transformers_reads_the_same_ids(trimmed, half):
    theirs = AutoTokenizer.from_pretrained(trimmed.path)
    ours = tokenizer(trimmed)
    for text in [*half[:20], "vessel strike", "naïve 東京"]:
        assert theirs(text, truncation=True, max_length=32)["input_ids"] == ours.encode([text])[0]


def test_lineage_and_labels(tiny_checkpoint, trimmed):
    assert trimmed.labels == tiny_checkpoint.labels
    last = trimmed.meta["lineage"][-1]
    assert last["step"] == "vocabulary" and last["parent"] == tiny_checkpoint.digest
    assert trimmed.digest != tiny_checkpoint.digest


@pytest.mark.parametrize(
    ("texts", "size", "message"), [([], 125, "no texts"), (["oil"], 20, "cannot hold the")]
)
def test_bad_requests_leave_nothing(tiny_checkpoint, tmp_path, texts, size, message):
    with pytest.raises(InputError, match=message):
        trim_vocabulary(tiny_checkpoint, texts, tmp_path / "out", VocabularyConfig(size))
    assert list(tmp_path.iterdir()) == []
