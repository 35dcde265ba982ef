"""A tiny base model, tiny data, and no way out to a network."""

import json
import random
from pathlib import Path

import pytest

from trainers.data import Dataset, Split

WORDS = [f"w{i}" for i in range(180)]
LABELS = ["arts", "business", "sport"]


def make_split(rows: int, seed: int) -> Split:
    """Texts of random words, with a few words that tell the class."""
    rng = random.Random(seed)
    texts, labels = [], []
    for row in range(rows):
        label = row % len(LABELS)
        marks = [f"w{label * 10 + rng.randrange(3)}" for _ in range(3)]
        words = marks + [rng.choice(WORDS[40:]) for _ in range(rng.randint(2, 14))]
        rng.shuffle(words)
        texts.append(f"{' '.join(words)} w{40 + row % 140} w{40 + row // 140 % 140} w{40 + seed}")
        labels.append(label)
    return Split(texts, labels)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 4 layers and 32 dimensions with a vocabulary of 185 words."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    fast = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer()
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast.enable_padding(length=64)  # as all-MiniLM's file has it: must not leak into training
    fast.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "BertTokenizerFast", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    config |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    shape = transformers.BertConfig(
        vocab_size=len(vocab), hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.15,
    )  # fmt: skip
    transformers.BertModel(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    splits = {"train": make_split(192, 1), "validation": make_split(30, 2), "test": make_split(45, 3)}
    source = {"name": "tiny", "place": "file", "revision": "0", "digest": "0" * 64}
    return Dataset("tiny", LABELS, splits, source)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No mirror, no hub, a cache of its own."""
    monkeypatch.delenv("EDGEWISE_MIRROR", raising=False)
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of the Llama family: 2 layers, 32 dimensions, 340 tokens, a chat template."""
    from tiny_generator import make_generator

    return make_generator(tmp_path_factory.mktemp("language") / "base")


@pytest.fixture(scope="session")
def instruction_rows() -> list[dict]:
    """15 prompts as messages, each with an answer of a few words."""
    return [
        {"prompt": [{"role": "user", "content": f"the {who}"}], "response": f"{who} sees {what}"}
        for who in ("cat", "dog", "bird", "fish", "tree")
        for what in ("house", "the river and the big tree", "a cat")
    ]


@pytest.fixture(scope="session")
def answer_pairs(instruction_rows: list[dict]) -> list[dict]:
    """The same prompts; the answer is chosen, its letters backwards are not."""
    return [
        {"prompt": row["prompt"], "chosen": row["response"], "rejected": row["response"][::-1]}
        for row in instruction_rows
    ]
