"""Shared by all folders: a tiny classifier, really trained, exported to every variant and packed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("USE_TF", "0")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "2")

# A shell's background job ignores Ctrl-C, and so would all that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from tiny_news import FILLER, TOPICS, rows

LENGTHS = (8, 16, 32)


def wordpiece(path, extra: str = "") -> int:
    """A BERT tokenizer over the topics' words and all letters; gives the size of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'-"
    words = sorted({word for topic in TOPICS.values() for word in topic.split()} | {*FILLER, *extra.split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    vocabulary = {
        token: index for index, token in enumerate([*tokens, *(w for w in words if w not in tokens)])
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", pieces
    )
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "pad_token": "[PAD]"}
    config |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A 3-layer, 32-dimensional BERT with random weights, as a base model folder."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("base")
    size = wordpiece(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data():
    """A prepared data set: 400 train, 80 validation, 120 test rows of four topics."""
    from trainers.data import Dataset, Split

    splits = {
        name: Split(*rows(n, seed))
        for seed, (name, n) in enumerate({"train": 400, "validation": 80, "test": 120}.items())
    }
    source = {"name": "tiny", "place": "file", "revision": "0", "digest": "0" * 64}
    return Dataset("tiny", list(TOPICS), splits, source)


@pytest.fixture(scope="session")
def tiny_config():
    from trainers.finetune import TrainConfig

    return TrainConfig(epochs=6, batch_size=16, learning_rate=3e-3, max_tokens=LENGTHS[-1], precision="fp32")


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_base, tiny_data, tiny_config, tmp_path_factory):
    from trainers.finetune import finetune

    return finetune(tiny_data, tiny_base, tmp_path_factory.mktemp("teacher") / "checkpoint", tiny_config)


@pytest.fixture(scope="session")
def tiny_variants(tiny_checkpoint, tmp_path_factory):
    """The default variants of the tiny checkpoint, by name."""
    from export.variant import DEFAULT, KNOWN
    from export.variants import export_variant

    folder, made = tmp_path_factory.mktemp("variants"), {}
    for name in DEFAULT:
        parent = folder / KNOWN[name][2] if KNOWN[name][2] else None
        made[name] = export_variant(name, tiny_checkpoint.path, parent, LENGTHS, folder / name)
    return made


@pytest.fixture(scope="session")
def tiny_calibration(tiny_data):
    from compress.calibrate import Calibration

    train = tiny_data.splits["train"]
    return Calibration(train.texts, train.labels, most=64)


@pytest.fixture(scope="session")
def tiny_extra(tiny_checkpoint, tiny_variants, tiny_calibration, tmp_path_factory):
    """Variants besides the default ones, by name, made when a test first asks: `tiny_extra("onnx-int4")`."""
    from functools import cache

    from export.variant import KNOWN
    from export.variants import export_variant

    folder = tmp_path_factory.mktemp("extra")

    @cache
    def made(name):
        parent = tiny_variants[KNOWN[name][2]].path.parent if KNOWN[name][2] else None
        out = folder / name
        return export_variant(name, tiny_checkpoint.path, parent, LENGTHS, out, tiny_calibration)

    return made


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint, tiny_variants, tiny_data, tmp_path_factory):
    """A packed and gated bundle folder with all variants. Copy it before you change it."""
    from export.gate import Budget
    from export.pack import pack

    out = tmp_path_factory.mktemp("bundle") / "tiny.bundle"
    return pack(tiny_checkpoint, list(tiny_variants.values()), tiny_data, out, "tiny", Budget()).path


@pytest.fixture(scope="session")
def tiny_keras(tmp_path_factory):
    """A folder of tiny Keras models in every form that a user may bring: tests/support/tiny_keras.py."""
    pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("keras")
    command = [sys.executable, str(Path(__file__).parent / "support" / "tiny_keras.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="session")
def pte_variants(tiny_checkpoint, tmp_path_factory):
    """ExecuTorch's variants of the tiny checkpoint; skips where no environment has executorch."""
    from apart import need_executorch

    from export.variants import export_variant

    need_executorch()
    folder, names = tmp_path_factory.mktemp("pte"), ("executorch-fp32", "executorch-int8")
    return {name: export_variant(name, tiny_checkpoint.path, None, LENGTHS, folder / name) for name in names}


@pytest.fixture(scope="session")
def pte_bundle(tiny_checkpoint, tiny_variants, pte_variants, tiny_data, tmp_path_factory):
    """A packed and gated bundle with ExecuTorch's variants and an ONNX one. Copy it before you change it."""
    from export.gate import Budget
    from export.pack import pack

    out = tmp_path_factory.mktemp("bundle") / "pte.bundle"
    made = [*pte_variants.values(), tiny_variants["onnx-fp32"]]
    return pack(tiny_checkpoint, made, tiny_data, out, "pte", Budget()).path


@pytest.fixture(scope="session")
def answer_parts(tiny_base, tmp_path_factory):
    """A tiny reader and a tiny embedder as bundles, by role."""
    from tiny_answers import part

    folder = tmp_path_factory.mktemp("parts")
    tasks = {"reader": "question-answering", "embedder": "feature-extraction"}
    return {role: part(tiny_base, task, folder / f"{role}.bundle") for role, task in tasks.items()}


@pytest.fixture(scope="session")
def tiny_collection(answer_parts, tmp_path_factory):
    """A collection's file of six short documents."""
    from tiny_answers import collection

    return collection(answer_parts["embedder"], tmp_path_factory.mktemp("collection") / "tiny.sqlite")


@pytest.fixture(scope="session")
def tiny_answers(answer_parts, tiny_collection, tmp_path_factory):
    """The bundle of that collection. Copy it before you change it."""
    from tiny_answers import QUESTIONS

    from export.collection import pack_collection

    out = tmp_path_factory.mktemp("answers") / "tiny.bundle"
    return pack_collection(tiny_collection, **answer_parts, questions=QUESTIONS, out=out).path


@pytest.fixture(scope="session")
def tiny_monitor(tmp_path_factory):
    """A tiny detector's build by the command line: tiny.toml, tiny.csv, runs/tiny/tiny.bundle."""
    from tiny_monitor import write_recipe

    from apps.cli.main import run

    folder = tmp_path_factory.mktemp("monitor")
    recipe = write_recipe(folder)
    assert run(["build", str(recipe), "--runs", str(folder / "runs")]) == 0
    return folder


@pytest.fixture(scope="session")
def detector_bundle(tiny_monitor):
    """That build's bundle. Copy it before you change it."""
    return tiny_monitor / "runs" / "tiny" / "tiny.bundle"


@pytest.fixture(scope="session")
def lm_checkpoints(tmp_path_factory):
    """Tiny language models as checkpoints, by family: llama (its cache in place) and gpt2 (its own)."""
    from tiny_lm import checkpoint

    folder = tmp_path_factory.mktemp("lm")
    return {family: checkpoint(folder, family) for family in ("llama", "gpt2")}


@pytest.fixture(scope="session")
def lm_bundles(lm_checkpoints, tmp_path_factory):
    """Those as bundles of one fp32 variant. Copy one before you change it."""
    from tiny_lm import bundle

    folder = tmp_path_factory.mktemp("lm-bundles")
    return {family: bundle(path, folder / f"{family}.bundle") for family, path in lm_checkpoints.items()}
