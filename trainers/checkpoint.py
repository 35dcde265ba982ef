"""The checkpoint: a folder that `from_pretrained` opens, and beside it `checkpoint.json`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtimes.bundle import NUMBERS
from runtimes.errors import InputError
from trainers.files import digest_files, read_json, write_json

SCHEMA = 1
MANIFEST = "checkpoint.json"
_KEYS = ("schema", "task", "labels", "limits", "data", "metrics", "seed", "lineage", "digest")
_LIMITS = ("max_tokens", "max_chars", "max_batch")
_LIMITS_NUMBERS = ("window", "patch", "max_channels", "max_batch")
_FILES = ("*.safetensors", "*.json", "*.txt")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. `meta` is the content of checkpoint.json, `digest` covers the model's files."""

    path: Path
    meta: dict[str, Any] = field(repr=False)

    @property
    def task(self) -> str:
        return str(self.meta["task"])

    @property
    def labels(self) -> list[str]:
        return list(self.meta["labels"])

    @property
    def limits(self) -> dict[str, int]:
        return dict(self.meta["limits"])

    @property
    def digest(self) -> str:
        return str(self.meta["digest"])


def checkpoint_digest(path: Path) -> str:
    """sha256 over (file name, file sha256) of the weight, tokenizer and config files."""
    found = {file for pattern in _FILES for file in path.glob(pattern)}
    return digest_files(path, (f for f in found if f.name != MANIFEST and not f.name.startswith(".")))


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open and check a checkpoint. InputError where it is missing, of a newer schema, or was altered."""
    folder = Path(path)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise InputError(f"{folder}: not a checkpoint (no {MANIFEST}); make one with `edgewise train`")
    meta = read_json(manifest)
    if not isinstance(meta, dict):
        raise InputError(f"{manifest}: not a JSON object; make the checkpoint again")
    if isinstance(meta.get("schema"), int) and meta["schema"] > SCHEMA:
        raise InputError(f"{manifest}: schema {meta['schema']} is newer than {SCHEMA}; update edgewise")
    _check_meta(manifest, meta)
    if checkpoint_digest(folder) != meta["digest"]:
        raise InputError(f"{folder}: its files are cut short or altered; make the checkpoint again")
    return Checkpoint(folder, meta)


def _check_meta(manifest: Path, meta: dict[str, Any]) -> None:
    missing = [key for key in _KEYS if key not in meta]
    if missing:
        raise InputError(f"{manifest}: {', '.join(missing)} missing; make the checkpoint again")
    labels, limits = meta["labels"], meta["limits"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{manifest}: labels is not a list of names; make the checkpoint again")
    keys = _LIMITS_NUMBERS if meta["task"] == NUMBERS else _LIMITS
    if not isinstance(limits, dict) or not all(type(limits.get(k)) is int and limits[k] > 0 for k in keys):
        raise InputError(f"{manifest}: limits needs {', '.join(keys)}; make the checkpoint again")


def seal(path: Path, meta: dict[str, Any]) -> Checkpoint:
    """Write checkpoint.json, the last file of a checkpoint, with the digest of the others.

    `meta` has task, labels, limits, data, metrics, seed, lineage; the last lineage step gets the digest.
    """
    digest = checkpoint_digest(path)
    lineage = [dict(step) for step in meta.get("lineage", [])]
    if lineage:
        lineage[-1]["digest"] = digest
    sealed = {"schema": SCHEMA, **meta, "lineage": lineage, "digest": digest}
    _check_meta(path / MANIFEST, sealed)
    write_json(path / MANIFEST, sealed)
    return Checkpoint(path, sealed)
