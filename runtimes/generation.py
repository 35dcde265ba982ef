"""What a bundle says of a model that writes: `generation`, and each variant's `cache`; both untrusted.

generation  {"eos": ids that end an answer, "bos": id that an empty prompt starts with or null,
             "template": runtimes.chat's plain data or null, "sampling": defaults of runtimes.sampling}
cache       {"layers", "kv_heads", "head_size", "dtype", "shared", "names": {"past_key", "past_value",
             "present_key", "present_value"}}, {} in a name standing for the layer's number
"""

import json
from pathlib import Path
from typing import Any

from runtimes.chat import check_template
from runtimes.sampling import BOUNDS, wrong

TASK = "text-generation"
MOST_IDS = 1 << 24
MOST_EOS = 64
NAMES = ("past_key", "past_value", "present_key", "present_value")
DTYPES = ("float32", "float16")
_SIZES = (("layers", 1_024), ("kv_heads", 1_024), ("head_size", 4_096))
MOST_BYTES_A_TOKEN = 16 << 20


def check_generation(generation: Any) -> None:
    """Raises ValueError, in words, unless this is such an entry."""
    if not isinstance(generation, dict) or not {"eos", "bos", "template", "sampling"} <= set(generation):
        raise ValueError("generation needs eos, bos, template and sampling")
    eos, bos, sampling = generation["eos"], generation["bos"], generation["sampling"]
    if not isinstance(eos, list) or not len(eos) <= MOST_EOS or not all(map(_is_id, eos)):
        raise ValueError(f"generation.eos must be a list of at most {MOST_EOS} token ids")
    if bos is not None and not _is_id(bos):
        raise ValueError("generation.bos must be a token id or null")
    if generation["template"] is not None:
        check_template(generation["template"])
    if not isinstance(sampling, dict):
        raise ValueError("generation.sampling must be an object")
    for key, value in sampling.items():
        problem = wrong(key, value)
        if problem:
            raise ValueError(f"generation.sampling: {problem}")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_IDS


def check_cache(cache: Any) -> None:
    """Raises ValueError, in words, unless this is the entry of a decoder's variant."""
    if not isinstance(cache, dict):
        raise ValueError("cache must be an object: the variant is no decoder")
    for key, most in _SIZES:
        if type(cache.get(key)) is not int or not 1 <= cache[key] <= most:
            raise ValueError(f"cache.{key} must be an integer from 1 to {most}")
    if 8 * cache["layers"] * cache["kv_heads"] * cache["head_size"] > MOST_BYTES_A_TOKEN:
        raise ValueError(f"the cache takes more than {MOST_BYTES_A_TOKEN >> 20} MB a token")
    if cache.get("dtype") not in DTYPES or not isinstance(cache.get("shared"), bool):
        raise ValueError(f"cache needs dtype ({' or '.join(DTYPES)}) and shared (true or false)")
    names = cache.get("names")
    if not isinstance(names, dict) or set(names) != set(NAMES):
        raise ValueError(f"cache.names has {', '.join(NAMES)}")
    for name in names.values():
        if not isinstance(name, str) or len(name) > 200 or name.count("{}") != 1:
            raise ValueError("a name of the cache is a text with one {} in it")
    if len(set(names.values())) != len(NAMES):
        raise ValueError("the names of the cache must differ")


def generation_of(folder: Path) -> dict[str, Any]:
    """The entry of a checkpoint folder, from generation_config.json and config.json; no template.

    Options of sampling count where the checkpoint says that it samples; else it takes the best token.
    """
    told: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        file = folder / name
        told |= json.loads(file.read_bytes()) if file.is_file() else {}
    eos = told.get("eos_token_id")
    sampling = {key: told[key] for key in BOUNDS if told.get(key) is not None and not wrong(key, told[key])}
    if not told.get("do_sample"):
        sampling = {key: value for key, value in sampling.items() if key == "repetition_penalty"}
    return {
        "eos": [] if eos is None else list(eos) if isinstance(eos, list) else [eos],
        "bos": told.get("bos_token_id"),
        "template": None,
        "sampling": sampling,
    }
