"""A model that somebody else trained: a folder that `from_pretrained` opens becomes a checkpoint."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.checkpoint import MANIFEST, Checkpoint, open_checkpoint, seal
from trainers.files import read_json
from trainers.finetune import MAX_BATCH, MAX_CHARS, TASK
from trainers.reader import TASK as READER

_MOST_TOKENS = 512
ENCODER = "feature-extraction"
ENCODER_LABELS = ["sentence_embedding"]


def open_or_adopt(path: Path, work: Path) -> Checkpoint:
    """The checkpoint at `path`; a model folder without checkpoint.json is adopted below `work`."""
    if (path / MANIFEST).is_file() or not (path / "config.json").is_file():
        return open_checkpoint(path)
    from trainers.generator import adopt_whole, is_generator

    made = work / f"adopted-{path.resolve().name}"
    return adopt_whole(path, made) if is_generator(path) else adopt(path, made)


def adopt(source: Path, out: Path) -> Checkpoint:
    """A trained classifier or reader (config.json, *.safetensors, tokenizer) as a checkpoint `out`.

    Labels are those of its config; LABEL_0, LABEL_1, … are called 0, 1, … A reader answers where its best
    span leads "not here" at all, until it is calibrated. Raises InputError for a base model without a trained
    head, for weights that would have to be unpickled, and where there is no tokenizer.
    """
    from trainers.model import save_model
    from trainers.tasks import task_of

    config = _config(source)
    if not any(source.glob("*.safetensors")):
        raise InputError(f"{source}: no *.safetensors; save it with save_pretrained (nothing is unpickled)")
    task = READER if _is_reader(config) else TASK
    model = task_of(task).open(source)
    most = _max_tokens(source, model)
    with writing(out) as folder, TemporaryDirectory(prefix="edgewise-") as work:
        save_model(model, tokenizer_folder(source, Path(work)), folder, most)
        labels = ["start", "end"] if task == READER else _labels(model)
        if len(set(labels)) != len(labels):
            raise InputError(f"{source}: config.json names a label twice; give each one a name")
        origin = {"name": source.resolve().name, "model_type": config["model_type"]}
        seal(folder, _meta(task, labels, most, origin))
    return open_checkpoint(out)


def _meta(task: str, labels: list[str], max_tokens: int, origin: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": task,
        "labels": labels,
        "limits": {"max_tokens": max_tokens, "max_chars": MAX_CHARS, "max_batch": MAX_BATCH},
        "data": {"name": "unknown: trained elsewhere"},
        "metrics": {},
        "seed": 0,
        "lineage": [{"step": "adopted", "config": origin}],
    }


def _labels(model: Any) -> list[str]:
    labels = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    return [re.sub(r"^LABEL_(\d+)$", r"\1", label) for label in labels]


def _is_reader(config: dict[str, Any]) -> bool:
    return any(str(kind).endswith("ForQuestionAnswering") for kind in config.get("architectures") or [])


def adopt_encoder(source: Path, out: Path, max_tokens: int, origin: dict[str, Any]) -> Checkpoint:
    """`source`, a sentence encoder by mean pooling, as a checkpoint `out` that reads `max_tokens`.

    `origin` is told of it in the lineage. Raises InputError where another pooling is stated beside it, for
    more tokens than it has positions, and as `adopt`.
    """
    from trainers.model import check_max_tokens, open_encoder, save_model

    _require_mean_pooling(source)
    model = open_encoder(source)
    check_max_tokens(model, max_tokens)
    with writing(out) as folder, TemporaryDirectory(prefix="edgewise-") as work:
        save_model(model, tokenizer_folder(source, Path(work)), folder, max_tokens)
        seal(folder, _meta(ENCODER, ENCODER_LABELS, max_tokens, origin))
    return open_checkpoint(out)


def _require_mean_pooling(source: Path) -> None:
    """sentence-transformers' own note of the pooling, where it lies beside the model."""
    note = source / "1_Pooling" / "config.json"
    told = read_json(note) if note.is_file() else {}
    modes = [key for key, value in told.items() if key.startswith("pooling_mode_") and value is True]
    if modes not in ([], ["pooling_mode_mean_tokens"]):
        raise InputError(f"{note}: pools by {', '.join(modes)}; only the mean of the tokens is supported")


def _config(source: Path) -> dict[str, Any]:
    try:
        config = json.loads((source / "config.json").read_bytes())
        kinds = [str(kind) for kind in config.get("architectures") or []]
        config["model_type"] = str(config["model_type"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(
            f"{source}: config.json is not a transformers config; save the model again"
        ) from None
    if not any(kind.endswith(("ForSequenceClassification", "ForQuestionAnswering")) for kind in kinds):
        found = ", ".join(kinds) or "no architecture"
        raise InputError(
            f"{source}: {found} is not a trained text classifier (…ForSequenceClassification) or reader "
            "(…ForQuestionAnswering); train one with `edgewise train`"
        )
    if config.get("problem_type") in ("regression", "multi_label_classification"):
        raise InputError(f"{source}: {config['problem_type']} is not supported; one label a text is")
    return dict(config)


def _max_tokens(source: Path, model: Any) -> int:
    """What model and tokenizer can both take, at most 512."""
    positions = getattr(model.config, "max_position_embeddings", None) or _MOST_TOKENS
    if model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= 2  # they start to count behind the padding position
    told = _MOST_TOKENS
    if (source / "tokenizer_config.json").is_file():
        about = read_json(source / "tokenizer_config.json")
        value = about.get("model_max_length") if isinstance(about, dict) else None
        told = int(value) if isinstance(value, int | float) and 0 < value < 1e6 else told
    return max(1, min(_MOST_TOKENS, positions, told))


def tokenizer_folder(source: Path, work: Path) -> Path:
    """Where tokenizer.json lies; made from the slow tokenizer's files where there is none."""
    from trainers.model import open_tokenizer

    if (source / "tokenizer.json").is_file():
        open_tokenizer(source, _MOST_TOKENS)  # raises where it is broken
        return source
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        tokenizer.save_pretrained(work)
    except (OSError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"{source}: no tokenizer that opens ({reason[:200]}); save it beside the model"
        ) from None
    if not (work / "tokenizer.json").is_file():
        raise InputError(f"{source}: its tokenizer has no fast form (tokenizer.json); choose one that has")
    return work
