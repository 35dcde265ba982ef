"""The bench row: its keys, and files of rows. One JSON object a row, one row a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtimes.bundle import write_atomic
from runtimes.errors import InputError

MAX_BYTES = 64 << 20
MAX_VALUE = 1e15

_NUMBER = (int, float)
_TEXT = (str,)
# Key → allowed types. None is allowed everywhere but in `_NEVER_NULL`: what was not measured is null.
KEYS: dict[str, tuple[type, ...]] = {
    "bundle": _TEXT, "variant": _TEXT, "engine": _TEXT, "engine_version": _TEXT, "device": (dict,),
    "emulated": (bool,), "simulated_profile": _TEXT, "threads": (int,), "batch": (int,), "n": (int,),
    "seconds": _NUMBER, "tokenization": (bool,), "latency_ms": (dict,), "cold_start_ms": _NUMBER,
    "peak_rss_mb": _NUMBER, "size_bytes": (int,), "metric": (dict,), "parity": (dict,),
    "energy_mj": _NUMBER, "energy_source": _TEXT, "note": _TEXT,
}  # fmt: skip
# Beside the schema that all devices share; a reader must do without them.
# entry: the name in the run; default: whether the bundle takes this variant by default; started: one value
# for all rows of one interleaved run; outliers: samples over 3 IQR above p75; overhead_ms: median of an empty
# call in the same loop; ratio_to {entry, speed, ci95, size}: times as fast and as small as that entry in the
# same run; sample {n, chars_p50, chars_max}: the texts; versions: what ran it.
# overhead_share: overhead_ms over p50; rerun {p50, difference, n}: a second, shorter loop, and by which part
# of the first loop's p50 on the same texts it differs; rss_mb {load, run}: peak memory until the model is
# loaded, and while it answers; energy {idle_mw, run_mw, n, seconds}: both sides of energy_mj; sustained
# {minutes, slices, drop}: answers without pause, and the last minute's p50 over the first's; generation
# {prompt_tokens, new_tokens, prefill_tokens_s, decode_tokens_s, first_token_ms, n}: a generator's pace,
# medians of n rounds (its latency_ms is of whole answers); null for all other tasks.
EXTRA_KEYS: dict[str, tuple[type, ...]] = {
    "entry": _TEXT, "precision": _TEXT, "providers": (list,), "default": (bool,), "quick": (bool,),
    "started": _TEXT, "outliers": (int,), "overhead_ms": _NUMBER, "ratio_to": (dict,),
    "tokenizer_bytes": (int,), "sample": (dict,), "versions": (dict,), "overhead_share": _NUMBER,
    "rerun": (dict,), "rss_mb": (dict,), "energy": (dict,), "sustained": (dict,),
    "generation": (dict,),
}  # fmt: skip
_NEVER_NULL = ("variant", "engine", "device", "emulated", "tokenization")
_PARTS: dict[str, dict[str, tuple[type, ...]]] = {
    "device": {
        "name": _TEXT, "soc": _TEXT, "cores": (int,), "isa": (list,), "memory_mb": _NUMBER, "os": _TEXT,
        "governor": _TEXT, "temperature_c": _NUMBER,
    },
    "latency_ms": dict.fromkeys(("p50", "p90", "p99", "mean"), _NUMBER) | {"ci95": (list,)},
    "metric": {"name": _TEXT, "value": _NUMBER, "n": (int,)},
    "parity": dict.fromkeys(("max_abs", "cosine", "agreement"), _NUMBER),
    "ratio_to": {"entry": _TEXT, "speed": _NUMBER, "ci95": (list,), "size": _NUMBER},
    "sample": dict.fromkeys(("n", "chars_p50", "chars_max"), (int,)),
    "rerun": {"p50": _NUMBER, "difference": _NUMBER, "n": (int,)},
    "rss_mb": dict.fromkeys(("load", "run"), _NUMBER),
    "energy": {"idle_mw": _NUMBER, "run_mw": _NUMBER, "n": (int,), "seconds": _NUMBER},
    "sustained": {"minutes": _NUMBER, "slices": (list,), "drop": _NUMBER},
    "generation": dict.fromkeys(("prompt_tokens", "new_tokens", "n"), (int,))
    | dict.fromkeys(("prefill_tokens_s", "decode_tokens_s", "first_token_ms"), _NUMBER),
}  # fmt: skip
# Lists of objects: what each of them has.
_LISTS: dict[tuple[str, str], dict[str, tuple[type, ...]]] = {
    ("sustained", "slices"): {
        "t_s": _NUMBER, "n": (int,), "p50": _NUMBER, "temperature_c": _NUMBER, "mhz": _NUMBER,
        "throttled": (bool,),
    },
    ("device", "core_types"): {"part": _TEXT, "cores": (int,), "max_mhz": _NUMBER},
}  # fmt: skip
# Not on every device's rows.
_MORE: dict[str, dict[str, tuple[type, ...]]] = {
    "device": {"throttled": _TEXT, "core_types": (list,)},
    "sample": {"unit": _TEXT},  # of the two lengths, where it is not characters
}
# Parts of which single values may be null, where the system or the reference does not tell.
_MAY_BE_NULL = {"device": set(_PARTS["device"]) - {"name"}, "ratio_to": {"size"}}
_LOWEST = {"device.": -273.15, "parity.": -1.0, "rerun.": -1.0, "sustained.slices.": -273.15}
MAX_LIST = 10_000


def save_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes rows as JSON lines, atomically. Raises InputError for a row that breaks the schema."""
    for number, row in enumerate(rows, 1):
        check_row(row, f"row {number}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, to_bytes(rows))


def to_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows as JSON lines (what `save_rows` writes, and what a bundle carries as bench/<device>.json)."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()


def open_rows(path: Path) -> list[dict[str, Any]]:
    """Reads rows: JSON lines, or one JSON list. Raises InputError with file and line."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: over {MAX_BYTES >> 20} MB, so not a file of bench rows")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; make rows with `edgewise bench BUNDLE`") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; bench rows are JSON lines") from error
    rows = _parse(path, text)
    if not rows:
        raise InputError(f"{path}: no rows in it; make some with `edgewise bench BUNDLE`")
    for number, row in rows:
        check_row(row, f"{path}:{number}")
    return [row for _, row in rows]


def _parse(path: Path, text: str) -> list[tuple[int, Any]]:
    if text.lstrip().startswith("["):
        return [(number, row) for number, row in enumerate(_json(text, f"{path}"), 1)]
    lines = enumerate(text.split("\n"), 1)
    return [(number, _json(line, f"{path}:{number}")) for number, line in lines if line.strip()]


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        message = str(error).splitlines()[0]
        raise InputError(f"{where}: not JSON: {message}; bench again or repair the file") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def check_row(row: Any, where: str) -> None:
    """Raises InputError (`where`, the key, what it should be) unless `row` follows the schema."""
    if not isinstance(row, dict):
        raise InputError(f"{where}: a bench row is a JSON object, not {type(row).__name__}")
    for key in KEYS:
        if key not in row:
            raise InputError(f"{where}: no key '{key}'; a bench row has: {', '.join(KEYS)}")
    _check_values(row, KEYS | EXTRA_KEYS, where, "")
    for key in _NEVER_NULL:
        if row[key] is None:
            raise InputError(f"{where}: '{key}' is null; every bench row has one")
    for part, keys in _PARTS.items():
        if row.get(part) is not None:
            _check_part(row[part], keys, where, part)


def _check_values(values: dict[str, Any], kinds: dict[str, tuple[type, ...]], where: str, part: str) -> None:
    for key, kind in kinds.items():
        value = values.get(key)
        wrong_bool = isinstance(value, bool) and bool not in kind
        if value is not None and (wrong_bool or not isinstance(value, kind)):
            names = " or ".join(one.__name__ for one in kind)
            raise InputError(f"{where}: '{part}{key}' is {type(value).__name__}, not {names}")
        if isinstance(value, float | int) and not _LOWEST.get(part, 0) <= value < MAX_VALUE:
            raise InputError(f"{where}: '{part}{key}' is {value}, which cannot be")


def _check_part(value: dict[str, Any], keys: dict[str, tuple[type, ...]], where: str, part: str) -> None:
    for key in keys:
        if key not in value or (value[key] is None and key not in _MAY_BE_NULL.get(part, ())):
            raise InputError(f"{where}: '{part}.{key}' is missing; measure again or repair the row")
    _check_values(value, keys | _MORE.get(part, {}), where, f"{part}.")
    for (whole, key), kinds in _LISTS.items():
        if whole == part and value.get(key) is not None:
            _check_list(value[key], kinds, where, f"{part}.{key}.")
    if "ci95" in keys:
        pair = value["ci95"]
        numbers = all(isinstance(end, _NUMBER) and not isinstance(end, bool) for end in pair)
        if len(pair) != 2 or not numbers or not 0 < pair[0] <= pair[1] < MAX_VALUE:
            raise InputError(f"{where}: '{part}.ci95' must be [low, high], not {json.dumps(pair)[:80]}")
    if part == "latency_ms" and not 0 < value["p50"] <= value["p90"] <= value["p99"]:
        raise InputError(f"{where}: latency_ms must have 0 < p50 <= p90 <= p99")
    if part == "metric" and value["n"] < 1:
        raise InputError(f"{where}: 'metric.n' must be at least 1")


def _check_list(values: list[Any], kinds: dict[str, tuple[type, ...]], where: str, part: str) -> None:
    if len(values) > MAX_LIST:
        raise InputError(f"{where}: '{part[:-1]}' has {len(values)} entries; {MAX_LIST} at most")
    for value in values:
        if not isinstance(value, dict) or set(value) != set(kinds):
            raise InputError(f"{where}: each of '{part[:-1]}' has {', '.join(kinds)} and no more")
        _check_values(value, kinds, where, part)
