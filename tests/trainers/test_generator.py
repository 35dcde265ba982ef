"""Language models from elsewhere: what becomes a checkpoint, and what is refused."""

import json
import os
from pathlib import Path

import pytest
from apart import need
from tiny_generator import make_generator

from runtimes.errors import InputError
from trainers.checkpoint import open_checkpoint
from trainers.generator import adopt_generator, end_tokens, open_generator

# The user's own, where the wheel may lie already: each test gets another.
CACHE = os.environ.get("EDGEWISE_CACHE") or str(Path.home() / ".cache" / "edgewise")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_is_adopted_with_its_template(family: str, tmp_path: Path) -> None:
    source = make_generator(tmp_path / "source", family)
    about = json.loads((source / "tokenizer_config.json").read_text())
    (source / "chat_template.jinja").write_text(about.pop("chat_template") + "{# beside #}")
    (source / "tokenizer_config.json").write_text(json.dumps(about))
    made = adopt_generator(source, tmp_path / "out", 64, {"name": "tiny"})
    assert open_checkpoint(made.path).meta == made.meta
    assert (made.task, made.labels, made.limits["max_tokens"]) == ("text-generation", [], 64)
    told = json.loads((made.path / "tokenizer_config.json").read_text())
    assert told["chat_template"].endswith("{# beside #}")
    model = open_generator(made.path)
    assert model.config.model_type == family and end_tokens(model) == [2]


def _pickled(source: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")


def _without_tokenizer(source: Path) -> None:
    for file in source.glob("tokenizer*"):
        file.unlink()


def _lossy(source: Path) -> None:
    table = json.loads((source / "tokenizer.json").read_text())
    table["decoder"] = {"type": "Fuse"}
    (source / "tokenizer.json").write_text(json.dumps(table))


def _encoder(source: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(
        json.dumps({**config, "model_type": "bert", "architectures": ["BertModel"]})
    )


def _endless(source: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        config = json.loads((source / name).read_text())
        (source / name).write_text(json.dumps({**config, "eos_token_id": None}))


def _broken(source: Path) -> None:
    (source / "model.safetensors").write_bytes(b"\xff" * 64)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_pickled, "nothing is unpickled"),
        (_without_tokenizer, "no tokenizer that opens"),
        (_lossy, "loses characters"),
        (_encoder, "BertModel is not generated with here"),
        (_endless, "no token ends an answer"),
        (_broken, "not a model that transformers opens"),
        (lambda source: (source / "config.json").write_text("[]"), "not a transformers config"),
    ],
)
def test_what_is_refused_leaves_nothing(damage, says: str, tmp_path: Path) -> None:
    source = make_generator(tmp_path / "source")
    damage(source)
    with pytest.raises(InputError, match=says) as caught:
        adopt_generator(source, tmp_path / "out", 64, {})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_context_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="128 positions"):
        adopt_generator(make_generator(tmp_path / "source"), tmp_path / "out", 129, {})


@pytest.mark.slow
def test_smollm2_from_its_wheel_reads_and_writes_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own tokenizer, once saved by transformers, scores this at 10.6, which is chance."""
    import torch
    from tokenizers import Tokenizer

    from trainers.sources import find

    monkeypatch.setenv("EDGEWISE_CACHE", CACHE)
    try:
        source = find("HuggingFaceTB/SmolLM2-135M-Instruct", "model")
    except InputError:
        need(False, "the wheel of SmolLM2")
    tokenizer = Tokenizer.from_file(str(source.path / "tokenizer.json"))
    for text in (
        "It's 1994,\n\tand  the café costs 42 €.",
        "def f(x):\n    return x ** 2",
        "日本語 🙂 \u0301x",
    ):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("<|im_start|>user\nHi 42<|im_end|>").ids[:1] == [1]
    text = "The film was released in 1994, and it became one of the most popular movies of all time."
    ids = torch.tensor([tokenizer.encode(text).ids])
    model = open_generator(source.path)
    with torch.inference_mode():
        assert model(ids, labels=ids).loss < 2.5
    assert (model.config.bos_token_id, end_tokens(model)) == (1, [2])
    assert "chat_template" in json.loads((source.path / "tokenizer_config.json").read_text())


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    from trainers.gguf import from_gguf

    for name, content in {"empty": b"", "text": b"GGUF not really", "zeros": b"GGUF" + bytes(200)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"not a GGUF|is not read here") as caught:
            from_gguf(tmp_path / name, tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
