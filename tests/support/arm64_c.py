"""The C example for arm64: a root with its headers and libraries, and qemu to run it in."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOOLS = ("mmdebstrap", "proot", "qemu-aarch64-static", "aarch64-linux-gnu-gcc", "make")
PACKAGES = "libonnxruntime-dev,zlib1g-dev"
SUITE = "trixie"  # bookworm has no ONNX Runtime
CACHE = Path(os.environ.get("EDGEWISE_CACHE") or Path.home() / ".cache/edgewise") / "devices"
# ONNX Runtime asks here what it may use, and qemu shows the host's.
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


def need_tools() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)} (.ci/run says which Debian packages)"
    if os.environ.get("EDGEWISE_ALL_TESTS"):
        pytest.fail(reason)
    pytest.skip(reason)


def root() -> Path:
    """A Debian arm64 root with the C headers and zlib, made once."""
    made = CACHE / f"c-{SUITE}-arm64"
    if not made.exists():
        beside = made.with_name(f".{made.name}.tmp-{os.getpid()}")
        beside.parent.mkdir(parents=True, exist_ok=True)
        command = ["mmdebstrap", "--variant=extract", "--architectures=arm64", f"--include={PACKAGES}"]
        subprocess.run([*command, SUITE, str(beside)], check=True, capture_output=True)
        if not (beside / "lib").exists():
            (beside / "lib").symlink_to("usr/lib")
        beside.rename(made)
    return made


def library() -> Path:
    """ONNX Runtime as its wheel for arm64 brings it: include/ and lib/, of the version installed here."""
    import onnxruntime

    version = onnxruntime.__version__
    made = CACHE / f"onnxruntime-{version}-arm64"
    if not made.exists():
        beside = made.with_name(f".{made.name}.tmp-{os.getpid()}")
        (beside / "lib").mkdir(parents=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                   "--platform=manylinux_2_28_aarch64", "--python-version=3.11", "--dest", str(beside),
                   f"onnxruntime=={version}"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        (wheel,) = beside.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(f"onnxruntime/capi/libonnxruntime.so.{version}")
        (beside / "lib/libonnxruntime.so.1").write_bytes(data)
        (beside / "lib/libonnxruntime.so").symlink_to("libonnxruntime.so.1")
        (beside / "include").symlink_to(root() / "usr/include/onnxruntime")
        wheel.unlink()
        beside.rename(made)
    return made


def run(program: Path, bundle: Path, *args: str, cpu: str = "cortex-a72") -> subprocess.CompletedProcess[str]:
    """The program on an emulated core; the bundle lies at /bundle."""
    cpuinfo = program.with_name("cpuinfo")
    cpuinfo.write_text(CPUINFO)
    binds = {
        "/proc": "/proc", "/sys": "/sys", "/dev": "/dev", cpuinfo: "/proc/cpuinfo", bundle: "/bundle",
        program: "/golden",
        library() / "lib/libonnxruntime.so.1": "/usr/lib/aarch64-linux-gnu/libonnxruntime.so.1",
    }  # fmt: skip
    bound = [word for host, guest in binds.items() for word in ("-b", f"{host}:{guest}")]
    emulator = [] if platform.machine() == "aarch64" else ["-q", "qemu-aarch64-static"]
    command = ["proot", *emulator, "-w", "/", "-r", str(root()), *bound, "/golden", *args]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "QEMU_CPU": cpu}, timeout=300
    )
