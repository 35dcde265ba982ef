"""An adapter beside its merged model: what it was trained on, and a refusal for any other base."""

from pathlib import Path
from typing import Any

from runtimes.errors import InputError
from trainers.files import digest_files, read_json, write_json

FOLDER = "adapter"
MANIFEST = "checkpoint.json"
SCHEMA = 2  # 1 knew the weights alone, not their settings
SETTINGS = "adapter_config.json"


def weights_digest(folder: Path) -> str:
    """sha256 over the weight files of a model folder."""
    return digest_files(folder, folder.glob("*.safetensors"))


def adapter_digest(folder: Path) -> str:
    """sha256 over an adapter's weights and its settings, which say what the weights are multiplied by."""
    return digest_files(folder, [*folder.glob("*.safetensors"), *folder.glob(SETTINGS)])


def save_adapter(policy: Any, base: Path, folder: Path, context: int) -> None:
    """PEFT's files, and checkpoint.json with the digest of the base's weights and `context`, the most tokens
    that they read together."""
    policy.peft.save_pretrained(folder, safe_serialization=True)
    for name in ("README.md", SETTINGS):  # they name a folder of this machine
        (folder / name).unlink(missing_ok=True)
    told = policy.peft.peft_config["default"].to_dict()
    told = {key: sorted(value) if isinstance(value, set) else value for key, value in told.items()}
    told |= {"base_model_name_or_path": None, "inference_mode": True}
    write_json(folder / SETTINGS, told)
    kind = "dora" if told.get("use_dora") else str(told["peft_type"]).lower().rsplit(".", 1)[-1]
    about = {"schema": SCHEMA, "kind": kind, "max_tokens": context}
    about |= {"base": weights_digest(base), "digest": adapter_digest(folder)}
    write_json(folder / MANIFEST, about)


def check_adapter(adapter: Path, base: Path) -> dict[str, Any]:
    """What the adapter's checkpoint.json tells. InputError where it is altered, or of another base."""
    if not (adapter / MANIFEST).is_file():
        raise InputError(f"{adapter}: not an adapter (no {MANIFEST}); name a tuned checkpoint's {FOLDER}/")
    about = read_json(adapter / MANIFEST)
    known = isinstance(about, dict) and about.get("schema") == SCHEMA
    if not known or type(about.get("max_tokens")) is not int or type(about.get("kind")) is not str:
        raise InputError(f"{adapter / MANIFEST}: not an adapter's; tune again")
    if adapter_digest(adapter) != about.get("digest"):
        raise InputError(f"{adapter}: its weights or {SETTINGS} are cut short or altered; tune again")
    here = weights_digest(base)
    if here != about.get("base"):
        raise InputError(
            f"{adapter}: of another base (weights {str(about.get('base'))[:12]}) than {base} ({here[:12]}); "
            "name the model that it was trained on"
        )
    return about


def merged(base: Path, adapter: Path) -> Any:
    """The base in fp32 with the adapter added into its weights. InputError where PEFT does not open it."""
    import peft

    from trainers.generator import open_generator

    check_adapter(adapter, base)
    model = open_generator(base)
    try:
        return peft.PeftModel.from_pretrained(model, str(adapter), torch_device="cpu").merge_and_unload()
    except Exception as error:  # PEFT names no kinds: a wrong type in its settings is any of them
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{adapter}: not an adapter that PEFT opens ({reason[:200]}); tune again") from None
