"""A Keras model or a SavedModel → TFLite variants, by TensorFlow's own converter; and its own answers.

Everything that TensorFlow does happens in one child process: it is slow to import, it may crash, and a
SavedModel is a program. What can be refused without TensorFlow is refused before.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from export import adopt
from export.keras_child import SAVED, STRING_LINE, convert_in_child
from export.variant import Variant
from export.variants import open_variant
from runtimes.bundle import is_safe_name
from runtimes.errors import EngineError, InputError
from trainers.files import write_json

# TensorFlow's names: no optimization, dynamic range, full integer.
VARIANTS = ("tflite-fp32", "tflite-dynamic_wi8_afp32", "tflite-static_wi8_ai8")
USUAL = VARIANTS[:2]
MIN_CALIBRATION = 10
MAX_MEMBERS = 1_000
MAX_BYTES = 4 << 30
MAX_JSON_BYTES = 32 << 20
_STRINGS = ("TextVectorization", "StringLookup")
_FOREIGN = ("Lambda", "__lambda__", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer")


@dataclass(frozen=True)
class Converted:
    """`session` answers with what the Keras model answered to the given texts; `lengths` as the variants."""

    variants: list[Variant]
    session: "Recorded"
    max_tokens: int
    seen: dict[str, Any]


class Recorded:
    """Answers that were given in a child, as a session: what was not asked there cannot be answered."""

    def __init__(self, lengths: list[int], table: dict[bytes, np.ndarray]) -> None:
        self.lengths: list[int] | None = lengths
        self._table = table

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return {"logits": np.stack([self._table[key] for key in _keys(feeds)])}
        except KeyError:
            raise EngineError("the original was not asked this text") from None

    def describe(self) -> dict[str, Any]:
        return {"engine": "tensorflow", "engine_version": "", "threads": 1, "providers": []}


def _keys(feeds: dict[str, np.ndarray]) -> Iterator[bytes]:
    for ids, mask in zip(feeds["input_ids"], feeds["attention_mask"], strict=True):
        yield ids.astype(np.int64).tobytes() + mask.astype(np.int8).tobytes()


def convert(
    source: Path,
    kind: str,
    names: Sequence[str],
    tokenizer: bytes,
    labels: int,
    texts: Sequence[str],
    calibration: Sequence[str],
    folder: Path,
    max_tokens: int | None,
    limits: tuple[int, int],
) -> Converted:
    """Make the named variants as folders of `folder`, and answer `texts` by the model itself.

    `limits` are the tokenizer's largest id and the length to take where the model takes any.
    Raises InputError for a model that is damaged, that holds code, or that does not become TFLite.
    """
    if find_spec("tensorflow") is None:
        raise InputError(f"{source}: needs tensorflow; pip install 'edgewise[keras]'")
    if kind == "keras":
        check_archive(source)
    else:
        check_folder(source)
    if "tflite-static_wi8_ai8" in names and len(calibration) < MIN_CALIBRATION:
        raise InputError(
            f"tflite-static_wi8_ai8 is calibrated with rows of --data, {len(calibration)} of the "
            f"{MIN_CALIBRATION} that it needs; give more rows"
        )
    (folder / "tokenizer.json").write_bytes(tokenizer)
    write_json(folder / "asked.json", {"texts": list(texts), "calibration": list(calibration)})
    for name in names:
        (folder / name).mkdir()
    given = {"source": str(source.resolve()), "folder": str(folder.resolve()), "names": list(names)}
    asked = {"labels": labels, "max_tokens": max_tokens, "largest_id": limits[0], "fallback": limits[1]}
    try:
        seen = adopt.guarded(source, convert_in_child, **given, **asked)
    except InputError as error:
        missing = [name for name in names if not (folder / name / "model.tflite").is_file()]
        if "crashes the engine" not in str(error) or len(missing) == len(names):
            raise
        raise InputError(
            f"{source}: TensorFlow's converter crashes on {missing[0]}; leave that variant out (--variant)"
        ) from None
    for name in names:
        write_json(folder / name / "details.json", seen["details"])
    with np.load(folder / "answers.npz", allow_pickle=False) as answers:
        keys = _keys({"input_ids": answers["input_ids"], "attention_mask": answers["attention_mask"]})
        by_length = _unpadded(seen["details"]["lengths"], answers, list(keys))
    variants = [open_variant(name, folder / name) for name in names]
    return Converted(variants, Recorded(seen["details"]["lengths"], by_length), seen["max_tokens"], seen)


def _unpadded(lengths: list[int], answers: Any, keys: list[bytes]) -> dict[bytes, np.ndarray]:
    """Rows are saved at the longest length; each is found again at the one that it was asked with."""
    if len(lengths) == 1:
        return dict(zip(keys, answers["logits"], strict=True))
    table = {}
    for ids, mask, length, logits in zip(*(answers[k] for k in SAVED), strict=True):
        feeds = {"input_ids": ids[None, :length], "attention_mask": mask[None, :length]}
        table[next(_keys(feeds))] = logits
    return table


def check_archive(source: Path) -> None:
    """Raises InputError for a .keras file that is damaged, escapes its folder, or holds code or strings."""
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            _check_members(source, members)
            broken = archive.testzip()
            config = archive.read("config.json")
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise InputError(f"{source}: not a whole .keras file ({str(error)[:80]}); save it again") from None
    except Exception as error:  # each compression method has errors of its own
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{source}: not a whole .keras file ({type(error).__name__}); save it again"
        ) from None
    if broken:
        raise InputError(f"{source}: {broken} in it is damaged; copy or save it again")
    try:
        told = json.loads(config)
    except (ValueError, RecursionError):
        raise InputError(f"{source}: its config.json is not JSON; save it again") from None
    for found in _objects(told):
        _check_object(source, found)


def _check_members(source: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(names) > MAX_MEMBERS or len(set(names)) != len(names):
        raise InputError(f"{source}: {len(names)} members, or some of them twice; not a .keras file")
    for member in members:
        if not is_safe_name(member.filename.rstrip("/")):
            raise InputError(f"{source}: member {member.filename!r} is not allowed in a .keras file")
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise InputError(f"{source}: unpacks to more than {MAX_BYTES >> 30} GB; not opened")
    sizes = {member.filename: member.file_size for member in members}
    for name in ("metadata.json", "config.json", "model.weights.h5"):
        if name not in sizes:
            raise InputError(f"{source}: no {name} in it, so not a .keras file; model.save('model.keras')")
    if max(sizes["config.json"], sizes["metadata.json"]) > MAX_JSON_BYTES:
        raise InputError(f"{source}: its config.json is over {MAX_JSON_BYTES >> 20} MB; not opened")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All dicts of a JSON value; without recursion, whatever its depth."""
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            yield one
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)


def _check_object(source: Path, told: dict[str, Any]) -> None:
    name, module = str(told.get("class_name", "")), told.get("module")
    if name in _STRINGS:
        raise InputError(f"{source}: {STRING_LINE.format(name)}")
    if name in _FOREIGN:
        raise InputError(
            f"{source}: {name.strip('_')} in it is code, which is never run; use built-in layers"
        )
    own = module is None or module == "builtins" or str(module).split(".")[0] == "keras"
    registered = str(told.get("registered_name") or "")
    if name and (not own or ">" in registered):
        raise InputError(
            f"{source}: class {registered or name!r} is not Keras's own; where it is defined, "
            "model.export('saved/') and bring that folder"
        )


def check_folder(source: Path) -> None:
    """Raises InputError for a SavedModel folder that is not whole or too large."""
    files = [file for file in source.rglob("*") if file.is_file()]
    if len(files) > MAX_MEMBERS or sum(file.stat().st_size for file in files) > MAX_BYTES:
        raise InputError(f"{source}: more than {MAX_MEMBERS} files or {MAX_BYTES >> 30} GB; not opened")
    if (source / "saved_model.pb").stat().st_size > adopt.MAX_MODEL_BYTES:
        raise InputError(f"{source}: saved_model.pb is over 2 GB; not opened")
