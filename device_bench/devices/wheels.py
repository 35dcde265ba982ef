"""Packages for a device that lacks them: wheels for its processor, Python and C library, fetched here.

They come from the package index through the user's own pip, are kept under EDGEWISE_CACHE, and go to the
device as one archive. What the device already has is used.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_bench.devices import Progress
from runtimes.errors import EngineError
from runtimes.files import writing

# What the project is tested with, and on which processors the index has wheels of it.
VERSIONS = {
    "numpy": "2.4.6", "tokenizers": "0.22.2", "onnxruntime": "1.32.0", "ai-edge-litert": "2.3.0",
    "tflite-runtime": "2.14.0",
}  # fmt: skip
NUMPY_1 = "1.26.4"  # the last that tflite-runtime was built for
_64 = ("aarch64", "x86_64")
_MACHINES = {
    "numpy": _64, "tokenizers": (*_64, "armv7l"), "onnxruntime": _64, "ai-edge-litert": _64,
    "tflite-runtime": (*_64, "armv7l"),
}  # fmt: skip
_BRINGS = {"onnx": ("onnxruntime",), "litert": ("ai-edge-litert", "tflite-runtime")}
_LEAST = {"numpy": (1, 24), "tokenizers": (0, 20)}
# What no bundle needs on a device: half of all bytes.
_LEFT = re.compile(
    r"(.*/)?tests?/|.*\.(pyi|h|a|lib)$|onnxruntime/(transformers|quantization|tools)/"
    r"|onnxruntime/capi/libonnxruntime\.so|ai_edge_litert/libLiteRtWebGpu|.*\.data/(scripts|headers|data)/"
)
_one_at_a_time = threading.Lock()


def missing(
    about: dict[str, Any], engines: Sequence[str], progress: Progress
) -> tuple[Path | None, list[str]]:
    """An archive of the packages that are missing (None where none is), and the engines that will run.

    `about` is what the device's runner says of it. An engine that no wheel brings there is left out. Raises
    EngineError where numpy or tokenizers cannot be had, or the index is not reached and nothing is cached.
    """
    with _one_at_a_time:
        has, wheels = [], []
        old = about["engines"].get("litert", "").startswith("tflite-runtime")
        for engine in engines:
            wheel = None if engine in about["engines"] else _engine(engine, about, progress)
            if engine in about["engines"] or wheel is not None:
                has.append(engine)
            if wheel is not None:
                wheels.append(wheel)
                old = old or wheel.name.startswith("tflite_runtime")
        if has:
            wheels += _ground(about, old, progress)
        return (archive_of(wheels) if wheels else None), has


def _engine(engine: str, about: dict[str, Any], progress: Progress) -> Path | None:
    for package in _BRINGS.get(engine, ()):
        wheel = fetch(package, VERSIONS[package], about, progress)
        if wheel is not None:
            return wheel
    progress(f"{engine}: no package of it for {_place(about)}")
    return None


def _ground(about: dict[str, Any], old: bool, progress: Progress) -> list[Path]:
    """What every engine needs. `old`: the engine was built for numpy 1."""
    found = []
    for package in ("numpy", "tokenizers"):
        version = _numbers(about["packages"].get(package, "0"))
        if version >= _LEAST[package] and not (package == "numpy" and old and version >= (2,)):
            continue
        wanted = NUMPY_1 if package == "numpy" and old else VERSIONS[package]
        wheel = fetch(package, wanted, about, progress)
        if wheel is None:
            raise EngineError(
                f"{package} {wanted} has no wheel for {_place(about)}; install the device's own "
                f"(`sudo apt install python3-{package}`) and try again"
            )
        found.append(wheel)
    return found


def _place(about: dict[str, Any]) -> str:
    python = ".".join(map(str, _numbers(about["python"])[:2]))
    return f"Python {python} on {about['machine']}{'' if _tags(about) else ' without glibc 2.17'}"


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _tags(about: dict[str, Any]) -> list[str]:
    """The platforms of wheels that run there: every manylinux up to its own glibc, newest first."""
    name, version = about["libc"]
    major, minor, *_ = (*_numbers(version), 0, 0)
    if name != "glibc" or major != 2:
        return []
    tags = [f"manylinux_2_{number}_{about['machine']}" for number in range(minor, 16, -1)]
    return [*tags, f"manylinux2014_{about['machine']}"] if tags else []


def cache_folder() -> Path:
    """Where wheels for devices lie: under `EDGEWISE_CACHE`, by default `~/.cache/edgewise`."""
    return Path(os.environ.get("EDGEWISE_CACHE") or "~/.cache/edgewise").expanduser() / "devices"


def fetch(package: str, version: str, about: dict[str, Any], progress: Progress) -> Path | None:
    """A wheel that runs there, from the cache or the package index; None where there is none.

    Raises EngineError where the index cannot be reached.
    """
    tags = _tags(about)
    if about["machine"] not in _MACHINES[package] or not tags:
        return None
    python = ".".join(map(str, _numbers(about["python"])[:2]))
    folder = cache_folder() / "wheels" / f"{tags[0]}-python{python}" / f"{package}-{version}"
    for wheel in folder.glob("*.whl"):
        if zipfile.is_zipfile(wheel):
            return wheel
    progress(f"fetching {package} {version} for {_place(about)}")
    with tempfile.TemporaryDirectory(prefix="edgewise-") as temporary:
        problem = _download(f"{package}=={version}", python, tags, temporary)
        if problem is not None:
            if problem:
                raise EngineError(f"{package} {version} for {_place(about)} was not fetched: {problem}")
            return None
        (wheel,) = Path(temporary).glob("*.whl")
        folder.parent.mkdir(parents=True, exist_ok=True)
        for rest in folder.glob("*"):
            rest.unlink()  # damaged
        with writing(folder) as new:
            (new / wheel.name).write_bytes(wheel.read_bytes())
    return folder / wheel.name


def _download(pin: str, python: str, tags: list[str], folder: str) -> str | None:
    """None when it is there, "" where the index has no such wheel, else what went wrong."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "download",
        "--quiet",
    ]
    command += ["--no-deps", "--only-binary=:all:", "--retries=1", "--dest", folder, pin]
    command += ["--python-version", python, "--implementation", "cp"]
    command += [word for tag in tags for word in ("--platform", tag)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except subprocess.TimeoutExpired:
        return "pip took over 15 minutes"
    if done.returncode == 0:
        return None
    if re.search("connection broken|Connection|timed out|Temporary failure|ProxyError", done.stderr):
        return "the package index is not reached from here; go online once, it is kept then"
    if "No matching distribution" in done.stderr:
        return ""
    return (done.stderr.strip().splitlines() or ["pip said nothing"])[-1].removeprefix("ERROR: ")[:300]


def archive_of(wheels: Sequence[Path]) -> Path:
    """One archive of what the wheels unpack to, less what a device does not need: the same bytes always."""
    key = hashlib.sha256("\n".join(sorted(wheel.name for wheel in wheels)).encode()).hexdigest()[:16]
    target = cache_folder() / "sites" / f"{key}.zip"
    if zipfile.is_zipfile(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(f".tmp-{os.getpid()}")
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            for wheel in sorted(wheels):
                _copy(wheel, archive)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def _copy(wheel: Path, archive: zipfile.ZipFile) -> None:
    with zipfile.ZipFile(wheel) as source:
        for member in source.infolist():
            name = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", member.filename)
            if not member.is_dir() and not _LEFT.match(name):
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                archive.writestr(info, source.read(member), zipfile.ZIP_DEFLATED)
