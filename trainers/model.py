"""Open, tokenize for, and save text classifiers (torch)."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer as FastTokenizer

from runtimes.errors import InputError
from runtimes.text import Tokenizer
from trainers.files import read_json, write_json

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def open_model(path: Path, labels: list[str] | None = None) -> Any:
    """A fp32 classifier. With `labels`, a base model gets a new head for them where its own does not fit."""
    if labels is None:
        return opened(transformers.AutoModelForSequenceClassification, path)
    names = dict(enumerate(labels))
    extra = {"id2label": names, "label2id": {v: k for k, v in names.items()}, "num_labels": len(labels)}
    extra["ignore_mismatched_sizes"] = True
    return opened(transformers.AutoModelForSequenceClassification, path, **extra)


def open_reader(path: Path) -> Any:
    """A fp32 reader: logits of an answer's first and last token. A base model gets a new head."""
    return opened(transformers.AutoModelForQuestionAnswering, path)


def open_encoder(path: Path) -> Any:
    """A fp32 encoder without a head: the hidden states of each token."""
    return opened(transformers.AutoModel, path)


def opened(kind: Any, path: Path, **extra: Any) -> Any:
    try:
        return kind.from_pretrained(
            path, local_files_only=True, use_safetensors=True, trust_remote_code=False,
            dtype=torch.float32, **extra,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: not a model that transformers opens ({reason[:200]})") from None


def open_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    """The project's own tokenizer over the folder's tokenizer.json."""
    file = path / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{path}: no tokenizer.json; choose a base model with a fast tokenizer")
    return Tokenizer.from_bytes(file.read_bytes(), max_tokens)


def check_max_tokens(model: Any, max_tokens: int) -> None:
    """InputError where the model has too few positions."""
    config = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= 2  # they start to count behind the padding position
    if positions and max_tokens > positions:
        raise InputError(f"train.max_tokens = {max_tokens}: the model has {positions} positions; take fewer")


def save_model(model: Any, tokenizer_from: Path, out: Path, max_tokens: int) -> None:
    """Weights (fp32 safetensors), config.json, tokenizer.json and tokenizer_config.json."""
    model.float().save_pretrained(out, safe_serialization=True)
    fast = FastTokenizer.from_file(str(tokenizer_from / "tokenizer.json"))
    fast.no_padding()
    fast.no_truncation()
    fast.save(str(out / "tokenizer.json"))
    config_file = tokenizer_from / "tokenizer_config.json"
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if config_file.is_file():
        config = read_json(config_file)
    config.pop("name_or_path", None)
    write_json(out / "tokenizer_config.json", {**config, "model_max_length": max_tokens})
    special = tokenizer_from / "special_tokens_map.json"
    if special.is_file():
        shutil.copyfile(special, out / special.name)
