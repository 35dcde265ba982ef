"""The bundle: the artefact that ships. A folder, or the same as one .zip.

`bundle.json` (schema 1) lists every other file with its size and sha256, and carries its own digest in
`sha256` (over the manifest without that key, as canonical JSON). Nothing is read that is not listed.

Schema 2 is a bundle of bundles: `parts` names the folders of whole bundles of schema 1 in it, whose files
are listed and checked like all others. A single model is still written as schema 1, for older readers.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import BundleError
from runtimes.files import write_atomic
from runtimes.generation import TASK as GENERATION
from runtimes.generation import check_cache, check_generation

SCHEMA = 1
SCHEMA_PARTS = 2
MANIFEST = "bundle.json"
MAX_FILES = 1_000
MAX_BYTES = 4 << 30
MAX_MANIFEST_BYTES = 4 << 20
MAX_TOKENS = 1 << 16
MAX_WINDOW = 1 << 16  # points
ENGINES = ("onnx", "litert", "executorch")
# The task whose inputs are windows of numbers: it has no tokenizer.
NUMBERS = "anomaly-detection"
GOLDEN = ("texts", "values", "labels", "input_ids", "attention_mask", "continuation")
OUTPUTS = ("logits", "sentence_embedding", "expected")
_NAME = re.compile(r"[A-Za-z0-9_.@+-]+(/[A-Za-z0-9_.@+-]+)*")

# What bundle.json must hold: key → type.
_KEYS: dict[str, type] = {
    "schema": int,
    "name": str,
    "task": str,
    "labels": list,
    "limits": dict,
    "signature": dict,
    "variants": dict,
    "defaults": dict,
    "files": dict,
    "lineage": list,
    "sha256": str,
}
_KEYS_PARTS: dict[str, type] = {
    **{key: _KEYS[key] for key in ("schema", "name", "task", "files", "lineage", "sha256")},
    "parts": dict,
}
_VARIANT_KEYS: dict[str, type] = {"engine": str, "precision": str, "file": str, "size_bytes": int}
_MAX_BATCH = ("max_batch", 1, 10_000_000)
_LIMITS = (("max_tokens", 4, MAX_TOKENS), ("max_chars", 1, 10_000_000), _MAX_BATCH)
_LIMITS_NUMBERS = (
    ("window", 2, MAX_WINDOW),
    ("patch", 1, MAX_WINDOW),
    ("max_channels", 1, 100_000),
    _MAX_BATCH,
)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, every digest checked. `files` holds name → bytes of a .zip, None for a folder."""

    path: Path
    manifest: dict[str, Any]
    files: Mapping[str, bytes] | None = None

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def task(self) -> str:
        return self.manifest["task"]

    @property
    def parts(self) -> dict[str, str]:
        """Role → folder of a bundle in this one; empty for the bundle of a single model."""
        return self.manifest.get("parts", {})

    def part(self, role: str) -> "Bundle":
        """The bundle that plays a role in this one. Raises BundleError where it is missing or differs."""
        folder = self.parts.get(role)
        if folder is None:
            raise BundleError(f"{self.path}: has no {role}; pack it again")
        inside = {name.removeprefix(f"{folder}/"): entry for name, entry in self.manifest["files"].items()
                  if name.startswith(f"{folder}/")}  # fmt: skip
        path = self.path / folder
        manifest = _parse(path, self.read(f"{folder}/{MANIFEST}"))
        _refuse_parts(path, manifest)
        for name, entry in manifest["files"].items():
            about = inside.get(name)
            if about is None or any(about[key] != entry[key] for key in ("bytes", "sha256")):
                raise BundleError(f"{path}: {name} is not what {MANIFEST} lists; pack it again")
        files = None
        if self.files is not None:
            files = {name: self.files[f"{folder}/{name}"] for name in manifest["files"]}
        return Bundle(path, manifest, files)

    @property
    def labels(self) -> list[str]:
        return self.manifest["labels"]

    @property
    def limits(self) -> dict[str, int]:
        return self.manifest["limits"]

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        return self.manifest["variants"]

    @property
    def defaults(self) -> dict[str, str]:
        """Engine (or "*") → variant to take."""
        return self.manifest["defaults"]

    def read(self, name: str) -> bytes:
        """One listed file. Raises BundleError where it is not listed."""
        if name not in self.manifest["files"]:
            raise BundleError(f"{self.path}: {name} is not in the bundle; pack it again")
        return self.files[name] if self.files is not None else (self.path / name).read_bytes()

    def source(self, name: str) -> Path | bytes:
        """What an engine opens: the path in a folder (mapped, not copied), the bytes of a .zip."""
        return self.read(name) if self.files is not None else self.path / name

    def golden(self) -> dict[str, np.ndarray]:
        """Golden inputs and the checkpoint's own outputs; `runtimes.golden` reads them.

        `texts` unicode (n,), or (n, 2) pairs of question and passage; `labels` (n,) int64, -1 where there is
        none. One row for each text, of pairs one for each window, in their order: `input_ids` and
        `attention_mask` (rows, L) int64, and float32 `logits` (rows, labels), of readers (rows, L, 2), or
        `sentence_embedding` (rows, dimensions). Of detectors float32 `values` (n, window), in place of texts
        and tokens, and `expected` (n, window + patch).
        """
        from runtimes.golden import check_golden

        try:
            with np.load(io.BytesIO(self.read("golden.npz")), allow_pickle=False) as arrays:
                golden = {name: arrays[name] for name in (*GOLDEN, *OUTPUTS) if name in arrays.files}
            check_golden(golden, self.manifest)
        except BundleError:
            raise
        except Exception:  # numpy raises whatever its parsers meet, and advises to unpickle
            raise BundleError(f"{self.path}: golden.npz is damaged; pack the bundle again") from None
        return golden


def open_bundle(path: str | Path, parts: bool = False) -> Bundle:
    """Open a bundle folder or .zip; check its schema and the sha256 of every file.

    Raises BundleError where it is missing, cut short, altered, or of a newer schema; or of several models,
    unless `parts`, since few can handle those.
    """
    path = Path(path)
    if path.is_dir():
        bundle = _open_folder(path)
    elif not path.exists():
        raise BundleError(f"{path}: no such bundle; make one with `edgewise build RECIPE`")
    elif not zipfile.is_zipfile(path):
        raise BundleError(f"{path}: neither a bundle folder nor a complete .zip; pack or copy it again")
    else:
        bundle = _open_zip(path)
    if not parts:
        _refuse_parts(path, bundle.manifest)
    return bundle


def _refuse_parts(path: Path, manifest: dict[str, Any]) -> None:
    if "parts" in manifest:
        folders = ", ".join(map(str, manifest["parts"].values()))
        raise BundleError(f"{path}: holds several models ({folders}); a single model's bundle is needed here")


def _open_folder(path: Path) -> Bundle:
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(f"{path}: no {MANIFEST} in it, so not a bundle; name the folder that holds one")
    if manifest_path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{manifest_path}: over {MAX_MANIFEST_BYTES >> 20} MB; pack the bundle again")
    manifest = _parse(path, manifest_path.read_bytes())
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file() or not file.resolve().is_relative_to(path.resolve()):
            raise BundleError(f"{path}: {name} is missing; copy the bundle again")
        if file.stat().st_size != entry["bytes"]:
            raise BundleError(
                f"{path}: {name} has {file.stat().st_size} bytes, not {entry['bytes']}; copy the bundle again"
            )
        with file.open("rb") as stream:
            _check_digest(path, name, entry, hashlib.file_digest(stream, "sha256").hexdigest())
    return Bundle(path, manifest)


def _open_zip(path: Path) -> Bundle:
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_zip(path, archive)
    except BundleError:
        raise
    except Exception as error:  # each compression method has errors of its own
        raise BundleError(f"{path}: damaged archive ({error}); copy the bundle again") from None


def _read_zip(path: Path, archive: zipfile.ZipFile) -> Bundle:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) > MAX_FILES + 1:
        raise BundleError(f"{path}: {len(members)} files, over the limit of {MAX_FILES}; not a bundle")
    if MANIFEST not in members:
        raise BundleError(f"{path}: no {MANIFEST} in it, so not a bundle; zip the bundle folder's contents")
    manifest = _parse(path, _member(path, archive, members[MANIFEST], MAX_MANIFEST_BYTES))
    files = {}
    for name, entry in manifest["files"].items():
        if name not in members:
            raise BundleError(f"{path}: {name} is missing; pack the bundle again")
        files[name] = _member(path, archive, members[name], entry["bytes"])
        if len(files[name]) != entry["bytes"]:
            raise BundleError(
                f"{path}: {name} has {len(files[name])} bytes, not {entry['bytes']}; copy the bundle again"
            )
        _check_digest(path, name, entry, hashlib.sha256(files[name]).hexdigest())
    return Bundle(path, manifest, files)


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """At most `limit` bytes of a member, whatever size its header claims."""
    with archive.open(info) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{path}: {info.filename} is larger than {limit} bytes; copy the bundle again")
    return data


def _check_digest(path: Path, name: str, entry: dict[str, Any], digest: str) -> None:
    if digest != entry["sha256"]:
        raise BundleError(f"{path}: {name} was altered (sha256 differs); copy the bundle again")


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {MANIFEST} is not JSON ({error}); copy the bundle again") from None
    if not isinstance(manifest, dict) or type(manifest.get("schema")) is not int or manifest["schema"] < 1:
        raise BundleError(f"{path}: {MANIFEST} has no schema version; pack the bundle again")
    if manifest["schema"] > SCHEMA_PARTS:
        raise BundleError(
            f"{path}: schema {manifest['schema']} is newer than {SCHEMA_PARTS}, which this edgewise reads; "
            "upgrade edgewise"
        )
    several = manifest["schema"] == SCHEMA_PARTS
    for key, kind in (_KEYS_PARTS if several else _KEYS).items():
        if not isinstance(manifest.get(key), kind):
            raise BundleError(f"{path}: {MANIFEST}: {key!r} must be a {kind.__name__}; pack the bundle again")
    if manifest_digest(manifest) != manifest["sha256"]:
        raise BundleError(f"{path}: {MANIFEST} was altered (its own sha256 differs); copy the bundle again")
    _check_files(path, manifest["files"])
    if several:
        _check_parts(path, manifest)
        return manifest
    if "parts" in manifest:
        raise BundleError(f"{path}: {MANIFEST}: schema {SCHEMA} has no parts; pack the bundle again")
    _check_variants(path, manifest)
    _check_rest(path, manifest)
    return manifest


def _check_files(path: Path, files: dict[str, Any]) -> None:
    if len(files) > MAX_FILES:
        raise BundleError(f"{path}: {len(files)} files, over the limit of {MAX_FILES}")
    total = 0
    for name, entry in files.items():
        if not is_safe_name(name):
            raise BundleError(f"{path}: {MANIFEST}: file name {name!r} is not allowed; pack the bundle again")
        size = entry.get("bytes") if isinstance(entry, dict) else None
        if not isinstance(size, int) or size < 0 or not isinstance(entry.get("sha256"), str):
            raise BundleError(f"{path}: {MANIFEST}: {name} needs 'bytes' and 'sha256'; pack the bundle again")
        total += size
    if total > MAX_BYTES:
        raise BundleError(f"{path}: {total} bytes, over the limit of {MAX_BYTES}")


def _check_parts(path: Path, manifest: dict[str, Any]) -> None:
    if not manifest["parts"]:
        raise BundleError(f"{path}: {MANIFEST}: no parts; pack the bundle again")
    for role, folder in manifest["parts"].items():
        plain = isinstance(folder, str) and is_safe_name(folder) and "/" not in folder
        if not plain or f"{folder}/{MANIFEST}" not in manifest["files"]:
            raise BundleError(f"{path}: {MANIFEST}: part {role!r} is {folder!r}, no bundle that it lists")


def _check_variants(path: Path, manifest: dict[str, Any]) -> None:
    if not manifest["variants"]:
        raise BundleError(f"{path}: {MANIFEST}: no variants; pack the bundle again")
    for name, variant in manifest["variants"].items():
        if not isinstance(variant, dict):
            raise BundleError(f"{path}: {MANIFEST}: variant {name!r} must be a dict; pack the bundle again")
        for key, kind in _VARIANT_KEYS.items():
            if not isinstance(variant.get(key), kind):
                raise BundleError(
                    f"{path}: {MANIFEST}: variant {name!r}: {key!r} must be a {kind.__name__}; "
                    "pack the bundle again"
                )
        if variant["engine"] not in ENGINES:
            raise BundleError(
                f"{path}: {MANIFEST}: variant {name!r}: engine {variant['engine']!r} is not known; "
                "upgrade edgewise"
            )
        if variant["file"] not in manifest["files"]:
            raise BundleError(f"{path}: {MANIFEST}: variant {name!r}: {variant['file']} is not listed")
    if "*" not in manifest["defaults"]:
        raise BundleError(f"{path}: {MANIFEST}: defaults has no '*'; pack the bundle again")
    for engine, name in manifest["defaults"].items():
        if not isinstance(name, str) or name not in manifest["variants"]:
            raise BundleError(f"{path}: {MANIFEST}: default for {engine!r} is {name!r}, no such variant")


def _check_rest(path: Path, manifest: dict[str, Any]) -> None:
    labels = manifest["labels"]
    if not all(isinstance(label, str) and label.isprintable() for label in labels):
        raise BundleError(f"{path}: {MANIFEST}: labels must be printable strings; pack the bundle again")
    numbers, writes = manifest["task"] == NUMBERS, manifest["task"] == GENERATION
    if len(set(labels)) != len(labels) or (not labels and not numbers and not writes):
        raise BundleError(f"{path}: {MANIFEST}: labels must be different strings; pack the bundle again")
    for key, least, most in _LIMITS_NUMBERS if numbers else _LIMITS:
        limit = manifest["limits"].get(key)
        if type(limit) is not int or not least <= limit <= most:
            raise BundleError(f"{path}: {MANIFEST}: limits.{key} must be an integer from {least} to {most}")
    if numbers and manifest["limits"]["window"] % manifest["limits"]["patch"]:
        raise BundleError(f"{path}: {MANIFEST}: limits.window must be a whole number of patches")
    if writes:
        _check_generator(path, manifest)


def _check_generator(path: Path, manifest: dict[str, Any]) -> None:
    where = ""
    try:
        check_generation(manifest.get("generation"))
        for name, variant in manifest["variants"].items():
            where = f"variant {name!r}: "
            check_cache(variant.get("cache"))
    except ValueError as error:
        raise BundleError(f"{path}: {MANIFEST}: {where}{error}; pack the bundle again") from None


def is_safe_name(name: str) -> bool:
    """A relative POSIX path of plain characters that cannot leave its folder."""
    return (
        len(name) <= 200
        and _NAME.fullmatch(name) is not None
        and name != MANIFEST
        and not any(part in (".", "..") for part in name.split("/"))
    )


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """sha256 of the manifest without its `sha256` key, as JSON with sorted keys and no blanks."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(folder: Path, manifest: dict[str, Any], names: Iterable[str]) -> None:
    """Write `bundle.json` for the named files of a folder: sizes, digests, its own digest. Atomic."""
    files = {}
    for name in sorted(names):
        data = (folder / name).read_bytes()
        files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    sealed = {**manifest, "files": files}
    sealed["sha256"] = manifest_digest(sealed)
    write_atomic(folder / MANIFEST, json.dumps(sealed, indent=1, ensure_ascii=False).encode() + b"\n")


def add_files(path: str | Path, files: Mapping[str, bytes]) -> None:
    """Add or replace files of a bundle folder and seal it again.

    Raises BundleError for a .zip, an unsafe name, or a bundle that is not whole.
    """
    bundle = open_bundle(path)
    if bundle.files is not None:
        raise BundleError(f"{path}: a .zip is not written to; unpack it and name the folder")
    for name, data in files.items():
        if not is_safe_name(name):
            raise BundleError(f"{path}: file name {name!r} is not allowed")
        (bundle.path / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(bundle.path / name, data)
    seal(bundle.path, bundle.manifest, {*bundle.manifest["files"], *files})
