"""Trim a vocabulary to what the training data uses, and the embedding and tokenizer with it.

In a small encoder most parameters are embedding rows (11.7 of MiniLM-L6's 22.7 M), and a task uses few of
them. Single characters stay, so that a word outside the vocabulary is still spelled, not lost.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.errors import InputError
from runtimes.files import writing
from runtimes.text import Tokenizer
from trainers.checkpoint import Checkpoint, open_checkpoint, seal

os.environ.setdefault("USE_TF", "0")


@dataclass(frozen=True)
class VocabularyConfig:
    """`size`: the most tokens to keep, special tokens and single characters included."""

    size: int = 12_000


def trim_vocabulary(
    checkpoint: Checkpoint, texts: Sequence[str], out: Path, config: VocabularyConfig
) -> Checkpoint:
    """Keep the `config.size` most frequent tokens of `texts`; every text they occur in encodes as before.

    Weights are otherwise untouched. Raises InputError for a tokenizer that is not WordPiece, for no texts,
    or for a size that cannot hold the characters.
    """
    source = json.loads((checkpoint.path / "tokenizer.json").read_bytes())
    if source["model"].get("type", "WordPiece") != "WordPiece":
        raise InputError(
            f"{checkpoint.path}: a {source['model']['type']} vocabulary cannot be trimmed, only WordPiece; "
            "leave [vocabulary] out of the recipe"
        )
    kept = _kept(checkpoint, source, texts, config.size)
    with writing(out) as folder:
        _save_weights(checkpoint.path, folder, kept)
        (folder / "tokenizer.json").write_text(
            json.dumps(_trimmed(source, kept), ensure_ascii=False), encoding="utf-8"
        )
        _save_tokenizer_config(checkpoint.path, folder)
        step = {"step": "vocabulary", "config": {"size": config.size, "kept": len(kept)}}
        lineage = [*checkpoint.meta["lineage"], {**step, "parent": checkpoint.digest}]
        seal(folder, {**checkpoint.meta, "metrics": {}, "lineage": lineage})
    return open_checkpoint(out)


def smallest_vocabulary(checkpoint: Checkpoint) -> int:
    """The fewest tokens that a trimmed WordPiece vocabulary can have: special ones and single characters."""
    return len(_fixed(json.loads((checkpoint.path / "tokenizer.json").read_bytes())))


def _fixed(source: dict[str, Any]) -> set[int]:
    """Ids of the tokens that always stay."""
    prefix = source["model"].get("continuing_subword_prefix", "##")
    special = {token["id"] for token in source["added_tokens"]}
    vocabulary: dict[str, int] = source["model"]["vocab"]
    return special | {i for token, i in vocabulary.items() if len(token.removeprefix(prefix)) == 1}


def _kept(checkpoint: Checkpoint, source: dict[str, Any], texts: Sequence[str], size: int) -> list[int]:
    """Old ids to keep, ascending, so that special tokens keep their order and [PAD] stays 0."""
    chosen = _fixed(source)
    if not texts:
        raise InputError("no texts to count tokens in; give the training rows")
    if len(chosen) > size:
        raise InputError(
            f"vocabulary.size {size} cannot hold the {len(chosen)} characters and special tokens; give at "
            "least that"
        )
    tokenizer = Tokenizer.from_bytes(json.dumps(source).encode(), max_tokens=checkpoint.limits["max_tokens"])
    counts = Counter(index for ids in tokenizer.encode(list(texts)) for index in ids)
    ranked = (index for index, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    for index in ranked:
        if len(chosen) >= size:
            break
        chosen.add(index)
    return sorted(chosen)


def _trimmed(source: dict[str, Any], kept: list[int]) -> dict[str, Any]:
    """tokenizer.json with the kept tokens under their new ids."""
    new = {old: index for index, old in enumerate(kept)}
    vocabulary = {token: new[old] for token, old in source["model"]["vocab"].items() if old in new}
    added = [{**token, "id": new[token["id"]]} for token in source["added_tokens"]]
    return {
        **source,
        "model": {**source["model"], "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1]))},
        "added_tokens": added,
        "post_processor": _renumbered(source["post_processor"], new),
        "truncation": None,
        "padding": None,
    }


def _renumbered(processor: dict[str, Any], new: dict[int, int]) -> dict[str, Any]:
    """The post-processor holds ids of [CLS] and [SEP] of its own."""
    if processor["type"] == "TemplateProcessing":
        tokens = {
            name: {**token, "ids": [new[index] for index in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        return {**processor, "special_tokens": tokens}
    if processor["type"] == "BertProcessing":
        return {**processor, **{key: [processor[key][0], new[processor[key][1]]] for key in ("sep", "cls")}}
    raise InputError(f"post-processor {processor['type']} is not supported; leave [vocabulary] out")


def _save_weights(source: Path, folder: Path, kept: list[int]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(source, local_files_only=True)
    rows = model.get_input_embeddings().weight.detach()[torch.tensor(kept)]
    model.resize_token_embeddings(len(kept))
    model.get_input_embeddings().weight.data.copy_(rows)
    if model.config.pad_token_id is not None:
        model.config.pad_token_id = kept.index(model.config.pad_token_id)
    model.save_pretrained(folder, safe_serialization=True)


def _save_tokenizer_config(source: Path, folder: Path) -> None:
    """Ids of added tokens stand in tokenizer.json; a second, old list beside it would contradict it."""
    for name in ("special_tokens_map.json",):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    if (source / "tokenizer_config.json").is_file():
        config = json.loads((source / "tokenizer_config.json").read_bytes())
        config.pop("added_tokens_decoder", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
