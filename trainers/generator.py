"""A decoder language model (the Llama family, GPT-2) as a checkpoint of task `text-generation`."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.adopt import tokenizer_folder
from trainers.checkpoint import Checkpoint, open_checkpoint, seal
from trainers.files import read_json, write_json

TASK = "text-generation"
FAMILIES = {"llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel"}
MAX_CHARS = 200_000
MAX_BATCH = 64
CONTEXT = 2_048  # tokens, where nobody asks for more or less
# What a tokenizer that lost its type on the way gives back with marks in it, or without its spaces.
_SAMPLE = "It's 1994:\n\tcafé, 42 €, naïve  日本 🙂 end."


def adopt_generator(source: Path, out: Path, max_tokens: int, origin: dict[str, Any]) -> Checkpoint:
    """`source`, a folder with a language model and its tokenizer, as a checkpoint `out`.

    `max_tokens` is the context, prompt and answer together. `origin` is told of the source in the lineage.
    Raises InputError for another family, weights that would have to be unpickled, no tokenizer, one that does
    not give a text back as it was, no token that ends an answer, and for more tokens than positions.
    """
    check_generator(source)
    model = open_generator(source)
    with writing(out) as folder, TemporaryDirectory(prefix="edgewise-") as work:
        save_generator(model, tokenizer_folder(source, Path(work)), folder, max_tokens)
        lineage = [{"step": "adopted", "config": origin}]
        seal(folder, generator_meta(max_tokens, {"name": "unknown: trained elsewhere"}, {}, 0, lineage))
    return open_checkpoint(out)


def is_generator(source: Path) -> bool:
    """Whether the folder's config names a family of language models that is taken here."""
    try:
        check_generator(source)
    except InputError:
        return False
    return True


def adopt_whole(source: Path, out: Path) -> Checkpoint:
    """`adopt_generator` with as many tokens as it has positions for, at most CONTEXT."""
    config = read_json(source / "config.json")
    positions = config.get("max_position_embeddings") or config.get("n_positions") or CONTEXT
    origin = {"name": source.resolve().name, "model_type": config["model_type"]}
    return adopt_generator(source, out, min(CONTEXT, int(positions)), origin)


def generator_meta(
    max_tokens: int, data: dict[str, Any], metrics: dict[str, Any], seed: int, lineage: list[dict[str, Any]]
) -> dict[str, Any]:
    """What checkpoint.json tells of a generator."""
    limits = {"max_tokens": max_tokens, "max_chars": MAX_CHARS, "max_batch": MAX_BATCH}
    return {"task": TASK, "labels": [], "limits": limits, "data": data, "metrics": metrics, "seed": seed,
            "lineage": lineage}  # fmt: skip


def check_generator(source: Path) -> None:
    """InputError where the folder holds no language model that is taken here."""
    try:
        config = json.loads((source / "config.json").read_bytes())
        family, kinds = str(config["model_type"]), [str(kind) for kind in config.get("architectures") or []]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{source}: config.json is not a transformers config; save the model again"
        ) from None
    if FAMILIES.get(family) not in kinds:
        raise InputError(
            f"{source}: {', '.join(kinds) or family} is not generated with here; "
            f"only {' and '.join(FAMILIES.values())} are"
        )
    if not any(source.glob("*.safetensors")):
        raise InputError(f"{source}: no *.safetensors; save it with save_pretrained (nothing is unpickled)")


def open_generator(path: Path) -> Any:
    """The model in fp32 on the CPU (torch, SDPA attention). InputError where it does not open."""
    import transformers

    from trainers.model import opened

    check_generator(path)
    return opened(transformers.AutoModelForCausalLM, path, attn_implementation="sdpa").eval()


def end_tokens(model: Any) -> list[int]:
    """Ids of the tokens that end an answer; empty where none is told."""
    told = getattr(model.generation_config, "eos_token_id", None)
    told = model.config.eos_token_id if told is None else told
    return [] if told is None else [int(one) for one in (told if isinstance(told, list) else [told])]


def save_generator(model: Any, tokenizer_from: Path, out: Path, max_tokens: int) -> None:
    """Weights (fp32 safetensors), configs, and the tokenizer with its chat template in its config."""
    from trainers.model import save_model

    _check_limits(model, tokenizer_from, max_tokens)
    save_model(model, tokenizer_from, out, max_tokens)
    template = tokenizer_from / "chat_template.jinja"
    if template.is_file():
        about = read_json(out / "tokenizer_config.json")
        write_json(
            out / "tokenizer_config.json", {**about, "chat_template": template.read_text(encoding="utf-8")}
        )
    check_round_trip(out)


def _check_limits(model: Any, tokenizer_from: Path, max_tokens: int) -> None:
    from trainers.model import check_max_tokens

    if max_tokens < 4:
        raise InputError(f"max_tokens = {max_tokens}: must be 4 or more")
    check_max_tokens(model, max_tokens)
    if not end_tokens(model):
        raise InputError(
            f"{tokenizer_from}: no token ends an answer; set eos_token_id in generation_config.json"
        )


def check_round_trip(folder: Path) -> None:
    """InputError where tokenizer.json is broken, or does not give back the text that it was given."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises a plain Exception
        raise InputError(f"{folder}: tokenizer.json is broken ({str(error)[:160]}); save it again") from None
    ids = tokenizer.encode(_SAMPLE, add_special_tokens=False).ids
    if tokenizer.decode(ids, skip_special_tokens=False).strip() != _SAMPLE:
        raise InputError(
            f"{folder}: tokenizer.json loses characters of a text; save the tokenizer in the form that the "
            "model was trained with (a byte-level BPE, as a rule)"
        )
