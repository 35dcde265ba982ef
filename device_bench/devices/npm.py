"""The npm packages that run a bundle in a browser: pinned in npm.toml, every file checked at every use.

They are fetched by the user's own npm (its registry, its settings), without running any script of theirs.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device_bench.devices import Progress
from runtimes.errors import EngineError

TABLE = Path(__file__).with_name("npm.toml")
TOKENIZERS = ("@huggingface/tokenizers",)
CHARTS = "uplot"  # for pages; no bundle needs it
PACKAGES = {"onnx": ("onnxruntime-web",), "litert": ("@litertjs/core", "@litertjs/wasm-utils")}
MAX_MEMBER_BYTES = 64 << 20
SECONDS = 600
# A worker has no import map: bare names become paths, in the copy that is served.
_BARE = {
    ("@litertjs/core", "dist/index.js"): (b'"@litertjs/wasm-utils"', b'"../../wasm-utils/dist/index.js"')
}


def pins() -> dict[str, dict[str, Any]]:
    """Package → {"version", "integrity", "files": {name: sha256}}."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def served(engines: Sequence[str], progress: Progress) -> dict[str, Path | bytes]:
    """Package files as a page asks for them, `<package>/<file>`, of the tokenizers and of these engines.

    Raises EngineError where npm is missing, gets nothing, or what it got is not what is pinned.
    """
    found: dict[str, Path | bytes] = {}
    names = [*TOKENIZERS, *(name for engine in engines for name in PACKAGES[engine])]
    for name in names:
        folder = package(name, progress)
        for file in pins()[name]["files"]:
            found[f"{name}/{file}"] = _patched(name, file, folder / file)
    return found


def _patched(name: str, file: str, path: Path) -> Path | bytes:
    if (name, file) not in _BARE:
        return path
    return path.read_bytes().replace(*_BARE[name, file])


def package(name: str, progress: Progress) -> Path:
    """The folder of a pinned package in the cache, fetched where it is not there or not whole."""
    pin = pins()[name]
    cache = Path(os.environ.get("EDGEWISE_CACHE") or "~/.cache/edgewise").expanduser() / "npm"
    folder = cache / f"{name.replace('/', '+')}-{pin['version']}"
    if not _whole(folder, pin["files"]):
        progress(f"fetching {name} {pin['version']} by npm")
        _fetch(name, pin, folder)
    return folder


def _whole(folder: Path, files: Mapping[str, str]) -> bool:
    return all(
        (folder / file).is_file() and _sha256(folder / file) == digest for file, digest in files.items()
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch(name: str, pin: dict[str, Any], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = _pack(f"{name}@{pin['version']}", Path(scratch))
        with archive.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha512").digest()
        if f"sha512-{base64.b64encode(digest).decode()}" != pin["integrity"]:
            raise EngineError(
                f"{name} {pin['version']}: not the package that is pinned (sha512 differs); "
                "look at the registry that npm asks"
            )
        fresh = Path(scratch, "package")
        _unpack(archive, fresh, pin["files"], name)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)


def _pack(spec: str, scratch: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise EngineError(f"{spec} is not in the cache and npm is not installed; install Node.js with npm")
    command = [npm, "pack", spec, "--ignore-scripts", "--pack-destination", str(scratch), "--loglevel=error"]
    try:
        done = subprocess.run(command, capture_output=True, cwd=scratch, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"npm did not get {spec} ({type(error).__name__}); is the network there?") from None
    archives = list(scratch.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise EngineError(f"npm did not get {spec}: {lines[0][:200]}; is the network there?")
    return archives[0]


def _unpack(archive: Path, folder: Path, files: Mapping[str, str], name: str) -> None:
    """The named files alone, at names of ours: what else an archive holds is never written."""
    wanted = {f"package/{file}": file for file in files}
    with tarfile.open(archive, "r:gz") as members:
        for member in members:
            if member.name not in wanted or not member.isfile() or member.size > MAX_MEMBER_BYTES:
                continue
            stream = members.extractfile(member)
            assert stream is not None
            target = folder / wanted[member.name]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(stream.read(MAX_MEMBER_BYTES))
    if not _whole(folder, files):
        raise EngineError(f"{name}: files of it are not those that are pinned; fetch edgewise again")
