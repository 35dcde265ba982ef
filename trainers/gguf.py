"""A model file of llama.cpp (GGUF) becomes a folder that `from_pretrained` opens.

Its weights were quantized: what is written here in fp32 is what they stand for, no more.
The tokenizer is written as a plain byte-level BPE. transformers' own reading of it, once saved, is typed as
SentencePiece: other readers then lose the spaces, and plain English scores no better than chance.
"""

import os
from pathlib import Path
from typing import Any

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.files import write_json

# Part of the name of what was made in the cache: raise it when something else is written.
VERSION = 1
# How text is cut before the merges, by GGUF's own name of it: True where each digit stands alone.
_CUTS = {"smollm": True, "gpt-2": False}
_CONTROL = 3  # GGUF's token type of special tokens


def from_gguf(file: Path, out: Path) -> Path:
    """Write the model of `file` as a Hugging Face folder `out` (fp32 safetensors), whole or not at all.

    InputError where it is no GGUF, or neither the Llama family nor GPT-2 with a byte-level BPE.
    """
    fields = _read_fields(file)
    _check(file, fields)
    model = _open_weights(file)
    ends = {name: fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "padding")}
    model.config.bos_token_id, model.config.eos_token_id = ends["bos"], ends["eos"]
    model.config.pad_token_id = ends["eos"] if ends["padding"] is None else ends["padding"]
    model.config._name_or_path = str(fields.get("general.name", file.stem))
    model.generation_config = type(model.generation_config).from_model_config(model.config)
    with writing(out) as folder:
        model.save_pretrained(folder, safe_serialization=True)
        make_tokenizer(fields).save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", _tokenizer_config(fields, model.config))
    return out


def _read_fields(file: Path) -> dict[str, Any]:
    """The file's key/value pairs."""
    from gguf import GGUFReader

    try:
        return {key: field.contents() for key, field in GGUFReader(file).fields.items()}
    except (ValueError, IndexError, KeyError, OSError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: not a GGUF that can be read ({reason[:160]}); fetch it again") from None


def _check(file: Path, fields: dict[str, Any]) -> None:
    kind, tokenizer = fields.get("general.architecture"), fields.get("tokenizer.ggml.model")
    if kind not in ("llama", "gpt2"):
        raise InputError(f"{file}: architecture {kind!r} is not read here; only llama and gpt2 are")
    cut = fields.get("tokenizer.ggml.pre")
    if tokenizer != "gpt2" or cut not in _CUTS:
        raise InputError(
            f"{file}: tokenizer {tokenizer!r} cut by {cut!r} is not read here; only a byte-level BPE cut by "
            f"{' or '.join(_CUTS)} is"
        )


def _open_weights(file: Path) -> Any:
    """The model in fp32. Its tensors are the file's, dequantised."""
    os.environ.setdefault("USE_TF", "0")
    import torch
    from transformers import AutoModelForCausalLM

    from trainers import model  # noqa: F401 - quiets transformers

    try:
        return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: its weights cannot be read ({reason[:160]})") from None


def make_tokenizer(fields: dict[str, Any]) -> Any:
    """A `tokenizers.Tokenizer`: byte-level BPE from GGUF's tokens and merges; adds no token of its own."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if _CUTS[fields["tokenizer.ggml.pre"]] else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*digits, bytes_])
    made.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return made


def _tokenizer_config(fields: dict[str, Any], config: Any) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    roles = {"bos": config.bos_token_id, "eos": config.eos_token_id, "pad": config.pad_token_id}
    roles["unk"] = fields.get("tokenizer.ggml.unknown_token_id")
    told = {f"{role}_token": tokens[index] for role, index in roles.items() if index is not None}
    if fields.get("tokenizer.chat_template"):
        told["chat_template"] = fields["tokenizer.chat_template"]
    length = fields.get(f"{fields['general.architecture']}.context_length", 1024)
    kept = {"clean_up_tokenization_spaces": False, "add_bos_token": False, "model_max_length": length}
    return {"tokenizer_class": "PreTrainedTokenizerFast", **told, **kept}
