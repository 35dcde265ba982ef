"""What this machine is: the `device` block of a bench row, from the standard library alone.

The host name is left out on purpose: rows travel with a bundle.
"""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from device_bench import cores

# The flags that change how fast a small model runs, under one name each.
_ISA = {
    "sse4_2": "sse4.2", "avx": "avx", "fma": "fma", "f16c": "f16c", "avx2": "avx2", "avx_vnni": "avx_vnni",
    "avx512f": "avx512f", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16", "amx_tile": "amx", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16",
    "neon": "neon", "asimd": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm",
    "bf16": "bf16", "sve": "sve", "sve2": "sve2", "sme": "sme",
}  # fmt: skip


def describe(root: Path = Path("/")) -> dict[str, Any]:
    """The device block: name, soc, cores, isa, memory_mb, os, governor, temperature_c, throttled, core_types.

    `cores` are the logical cores that this process may use, `core_types` all that there are, by kind;
    `memory_mb` the smaller of the installed memory and the control group's limit. What the system does not
    tell is None. `root` stands for `/` (tests).
    """
    cpu, phone = _cpuinfo(root), _properties(root)
    soc = _soc(root, cpu, phone)
    return {
        "name": _name(root, phone) or soc or platform.machine() or "unknown machine",
        "soc": soc,
        "cores": _cores(),
        "isa": _isa(cpu),
        "memory_mb": _memory_mb(root),
        "os": _os(root, phone),
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "temperature_c": temperature_c(root),
        "throttled": throttled(root),
        "core_types": cores.types(root),
    }


def emulated(root: Path = Path("/"), machine: str | None = None) -> bool:
    """Whether an instruction-set emulator (qemu-user) is seen under this process.

    Seen by its environment, or by an ARM process that finds an x86 `/proc/cpuinfo`. An emulator that hides
    both is not noticed: whoever starts one has to say so (EDGEWISE_EMULATED=1).
    """
    arm = (machine or platform.machine()).lower().startswith(("aarch64", "arm"))
    told = "QEMU_CPU" in os.environ or "EDGEWISE_EMULATED" in os.environ
    return told or (arm and "vendor_id" in _cpuinfo(root))


# The firmware's bits; the same ones 16 places up say that it was so since boot.
_THROTTLED = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


def throttled(root: Path = Path("/")) -> str | None:
    """A Raspberry Pi's throttling in words, like "under-voltage now; throttled since boot (0x40001)".

    "none" where all bits are clear, None on other machines.
    """
    bits = throttled_bits(root)
    if not bits:
        return None if bits is None else "none"
    parts = []
    for shift, when in ((0, "now"), (16, "since boot")):
        words = [word for bit, word in _THROTTLED.items() if bits >> shift >> bit & 1]
        parts += [f"{', '.join(words)} {when}"] if words else []
    return f"{'; '.join(parts) or 'unknown bits'} (0x{bits:x})"


def throttled_bits(root: Path = Path("/")) -> int | None:
    """What the firmware of a Raspberry Pi says of throttling: its `get_throttled` in sysfs or by vcgencmd."""
    for file in sorted((root / "sys/devices/platform").glob("soc*/soc*:firmware/get_throttled")):
        return _hexadecimal(_text(file))
    if root != Path("/") or not shutil.which("vcgencmd"):
        return None
    return _hexadecimal(_output(["vcgencmd", "get_throttled"]))


def _hexadecimal(text: str | None) -> int | None:
    """`throttled=0x50005`, `0x50005` and `50005` are all the same number."""
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", text or "")
    return int(found[1], 16) if found else None


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def temperature_c(root: Path = Path("/")) -> float | None:
    """The processor's temperature in degrees Celsius, or None where no sensor is shown."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    readings = {_text(zone / "type") or zone.name: _text(zone / "temp") for zone in zones}
    known = {name: float(raw) / 1000 for name, raw in readings.items() if raw and raw.lstrip("-").isdigit()}
    for word in ("x86_pkg", "cpu", "soc"):
        for name, value in known.items():
            if word in name.lower():
                return round(value, 1)
    if known:
        return round(next(iter(known.values())), 1)
    return _psutil_temperature() if root == Path("/") else None


def _psutil_temperature() -> float | None:
    try:
        import psutil
    except ImportError:
        return None
    sensors: dict[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    for name in ("coretemp", "k10temp", "cpu_thermal"):
        if sensors.get(name):
            return round(float(sensors[name][0].current), 1)
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _cpuinfo(root: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in (_text(root / "proc/cpuinfo") or "").splitlines())
    found: dict[str, str] = {}
    for key, _, value in pairs:
        found.setdefault(key.strip(), value.strip())
    return found


def _isa(cpu: dict[str, str]) -> list[str] | None:
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    if not flags:
        return None
    return list(dict.fromkeys(_ISA[key] for key in _ISA if key in flags))


def _properties(root: Path) -> dict[str, str]:
    """Android's properties: lines of `[name]: [value]`."""
    command = root / "system/bin/getprop"
    if not command.exists():
        return {}
    return dict(re.findall(r"^\[(.+?)\]: \[(.+)\]$", _output([str(command)]) or "", re.M))


def _soc(root: Path, cpu: dict[str, str], phone: dict[str, str]) -> str | None:
    """The chip. A Pi's kernel names the same chip on all boards, so the device tree goes first."""
    tree = (_text(root / "proc/device-tree/compatible") or "").split("\0")
    chip = tree[-1].rpartition(",")[2].upper() if tree[-1].startswith("brcm,") else None
    android = " ".join(filter(None, (phone.get("ro.soc.manufacturer"), phone.get("ro.soc.model"))))
    told = chip or android or _text(root / "sys/devices/soc0/machine")
    known = told or cpu.get("model name") or cpu.get("Hardware")
    return known or (platform.processor() if root == Path("/") else None) or None


def _name(root: Path, phone: dict[str, str]) -> str | None:
    """The board, the phone, or the PC, whichever this is."""
    board = _text(root / "proc/device-tree/model")
    maker, model = phone.get("ro.product.manufacturer", ""), phone.get("ro.product.model")
    if model:
        return model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    product = _text(root / "sys/class/dmi/id/product_name")
    return board or (None if product in {None, "System Product Name", "To Be Filled By O.E.M."} else product)


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_mb(root: Path) -> int | None:
    sizes = []
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            sizes.append(int(line.split()[1]) // 1024)
    limits = [_text(root / file) or "" for file in _memory_limits(root)]
    sizes += [int(raw) // 2**20 for raw in limits if raw.isdigit()]
    return min(sizes) if sizes else None


def _memory_limits(root: Path) -> list[str]:
    """Files with the cap of this process' control group, as the system or a container shows them."""
    found = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"]
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if "memory" in controllers.split(","):
            found.append(f"sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
        if not controllers:
            found.append(f"sys/fs/cgroup{path}/memory.max")
    return found


def _os(root: Path, phone: dict[str, str]) -> str:
    lines = (_text(root / "etc/os-release") or "").splitlines()
    names = [line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")]
    if "ro.build.version.release" in phone:
        names = [f"Android {phone['ro.build.version.release']}"]
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    return ", ".join([*names, kernel])
