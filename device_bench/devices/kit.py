"""The kit: a folder that runs bundles on any arm64 Linux kernel with nothing installed, Android's included.

Loader, C libraries, Python 3.11, numpy, tokenizers, ONNX Runtime and LiteRT. `./python` starts it. It is made
once, of Debian's packages and of wheels, and kept in the cache (EDGEWISE_CACHE) as one archive.
"""

import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_bench.devices import Progress, wheels
from runtimes.errors import EngineError, InputError

SUITE = "bookworm"
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
PACKED = ("ai-edge-litert", "numpy", "onnxruntime", "tokenizers")
SITE = "lib/python3/dist-packages"  # where Debian's Python looks below its home
# What Debian's Python on arm64 would say of itself: wheels are chosen for it.
TARGET = {"machine": "aarch64", "python": "3.11.2", "libc": ["glibc", "2.36"]}
LIBRARIES = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1",
             "ld-linux-aarch64.so.1", "libgcc_s.so.1", "libstdc++.so.6", "libz.so.1", "libexpat.so.1",
             "libcrypto.so.3", "libssl.so.3", "libffi.so.8", "libbz2.so.1.0", "liblzma.so.5",
             "libuuid.so.1")  # fmt: skip
# What no model needs at run time: tests, headers, converters, GPU delegates, a second copy of the engine.
LEFT_OUT = ("**/tests", "**/test", "**/*.a", "**/*.pyi", "**/*.h", "**/include", "**/__pycache__", "bin",
            "numpy/f2py", "numpy/distutils", "numpy/_core/_*_tests.*", "numpy/_core/_simd.*",
            "onnxruntime/transformers", "onnxruntime/tools", "onnxruntime/quantization",
            "onnxruntime/datasets", "onnxruntime/capi/libonnxruntime.so.*",
            "ai_edge_litert/libLiteRtWebGpuAccelerator.so", "ai_edge_litert/*converter*.so")  # fmt: skip
NOT_NEEDED = ("idlelib", "lib2to3", "pydoc_data", "ensurepip", "tkinter", "turtledemo", "curses", "sqlite3",
              "dbm", "distutils", "config-3.11*", "lib-dynload/_sqlite3*", "lib-dynload/_curses*",
              "lib-dynload/_dbm*", "lib-dynload/readline*", "lib-dynload/_codecs_*",
              "lib-dynload/_test*")  # fmt: skip
# Python is told where it is by argv0, so that sys.executable can be started again (the cold starts are).
START = """#!/system/bin/sh
kit=${0%/*}
export PYTHONHOME="$kit" PYTHONNOUSERSITE=1
exec "$kit/lib/ld-linux-aarch64.so.1" --argv0 "$kit/python" --library-path "$kit/lib" \\
    "$kit/bin/python3.11" "$@"
"""
_building = threading.Lock()


@dataclass(frozen=True)
class Kit:
    """The archive (.tar.gz), the sha256 of it, and the bytes that it has unpacked."""

    path: Path
    digest: str
    unpacked: int


def kit(progress: Progress) -> Kit:
    """The kit of this edgewise, built where the cache has none.

    Raises InputError where the tool for Debian's packages is missing, EngineError where a download fails.
    """
    made_of = [
        SUITE,
        SITE,
        PACKAGES,
        [wheels.VERSIONS[name] for name in PACKED],
        LIBRARIES,
        LEFT_OUT,
        NOT_NEEDED,
        START,
        bool(_compiler()),
    ]
    folder = _cache() / "kit" / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    with _building:
        if not (folder / "kit.json").is_file():
            _build(folder, progress)
    about = json.loads((folder / "kit.json").read_bytes())
    return Kit(folder / "kit.tar.gz", about["sha256"], about["unpacked"])


def _cache() -> Path:
    return Path(os.environ.get("EDGEWISE_CACHE") or Path.home() / ".cache" / "edgewise").expanduser()


def _build(folder: Path, progress: Progress) -> None:
    """Beside its place and renamed into it. Two processes at once make the same; the first one stays."""
    if not shutil.which("mmdebstrap"):
        raise InputError(
            "the kit for Android is made of Debian packages and mmdebstrap is missing; "
            "apt-get install mmdebstrap debian-archive-keyring"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as name:
        made, root, tree = Path(name, "made"), Path(name, "root"), Path(name, "tree")
        made.mkdir()
        progress("kit: Debian's packages for arm64")
        _extract(root)
        progress("kit: wheels for arm64")
        _install(tree / SITE, progress)
        _arrange(root, tree)
        digest = _pack(tree, made / "kit.tar.gz")
        unpacked = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
        (made / "kit.json").write_text(json.dumps({"sha256": digest, "unpacked": unpacked}))
        packed = (made / "kit.tar.gz").stat().st_size
        progress(f"kit: {unpacked / 1e6:.0f} MB, {packed / 1e6:.0f} MB packed, in {folder}")
        if not (folder / "kit.json").is_file():
            made.replace(folder)


def _extract(root: Path) -> None:
    command = ["mmdebstrap", "--mode=chrootless", "--variant=extract", "--architectures=arm64", "--quiet",
               f"--include={','.join(PACKAGES)}", SUITE, str(root)]  # fmt: skip
    _must(command, "Debian's packages for arm64 were not fetched")


def _install(folder: Path, progress: Progress) -> None:
    """The wheels of every package, unpacked into a folder."""
    for package in PACKED:
        wheel = wheels.fetch(package, wheels.VERSIONS[package], TARGET, progress)
        if wheel is None:
            raise EngineError(f"kit: {package} {wheels.VERSIONS[package]} has no wheel for arm64")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def _must(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith(("E:", "ERROR:"))] or said or ["it said nothing"]
        raise EngineError(f"kit: {what}: {errors[-1][:300]}; check the network and run again")


def _arrange(root: Path, tree: Path) -> None:
    """Debian's files and the wheels as one tree: python, bin/, lib/."""
    library = tree / "lib/python3.11"
    shutil.copytree(root / "usr/lib/python3.11", library, dirs_exist_ok=True, symlinks=False,
                    ignore_dangling_symlinks=True)  # fmt: skip
    (tree / "bin").mkdir()
    shutil.copyfile(root / "usr/bin/python3.11", tree / "bin/python3.11")
    for name in LIBRARIES:
        shutil.copyfile(_found(root, name), tree / "lib" / name)
    (tree / "python").write_text(START)
    _drop(library, (*NOT_NEEDED, "test", "__pycache__", "**/__pycache__"))
    _drop(tree / SITE, LEFT_OUT)
    _compile(tree / "lib")
    for path in (tree / "python", tree / "bin/python3.11", tree / "lib/ld-linux-aarch64.so.1"):
        path.chmod(0o755)


def _found(root: Path, name: str) -> Path:
    for folder in ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib"):
        if (root / folder / name).is_file():  # a link to a file of the same folder
            return root / folder / name
    raise EngineError(f"kit: {name} is in none of {', '.join(PACKAGES)}; take an edgewise made for {SUITE}")


def _drop(folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()


def _compiler() -> str | None:
    """A Python of the kit's version on this machine: byte code is of one version."""
    return sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")


def _compile(library: Path) -> None:
    """Modules as byte code in the place of their source: half the files, and no compiling on the device.

    Without a Python 3.11 here they stay source, and cold starts there include compiling them.
    """
    python = _compiler()
    if python is None:
        return
    command = [python, "-m", "compileall", "-q", "-b", "-s", str(library),
               "--invalidation-mode=unchecked-hash", str(library)]  # fmt: skip
    subprocess.run(command, capture_output=True, check=False)  # what is no Python 3 stays as it is
    for path in library.rglob("*.py"):
        if path.with_suffix(".pyc").is_file():
            path.unlink()


def _pack(tree: Path, archive: Path) -> str:
    """The tree as .tar.gz, the same bytes for the same files; its sha256."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in sorted(tree.rglob("*")):
            tar.add(path, str(path.relative_to(tree)), recursive=False, filter=_plain)
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Neither owner nor time: they differ from machine to machine."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.isdir() or info.mode & stat.S_IXUSR else 0o644
    return info
