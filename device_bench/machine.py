"""What this machine is: the `device` block of a bench row, from the standard library alone.

The host name is left out on purpose: rows travel with a bundle.
"""

import os
import platform
from pathlib import Path
from typing import Any

# The flags that change how fast a small model runs, under one name each.
_ISA = {
    "sse4_2": "sse4.2", "avx": "avx", "fma": "fma", "f16c": "f16c", "avx2": "avx2", "avx_vnni": "avx_vnni",
    "avx512f": "avx512f", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16", "amx_tile": "amx", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16",
    "neon": "neon", "asimd": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm",
    "bf16": "bf16", "sve": "sve", "sve2": "sve2", "sme": "sme",
}  # fmt: skip


def describe(root: Path = Path("/")) -> dict[str, Any]:
    """The device block: name, soc, cores, isa, memory_mb, os, governor, temperature_c.

    `cores` are the logical cores that this process may use, `memory_mb` the smaller of the installed memory
    and the control group's limit. What the system does not tell is None. `root` stands for `/` (tests).
    """
    cpu = _cpuinfo(root)
    soc = cpu.get("model name") or cpu.get("Hardware") or platform.processor() or None
    return {
        "name": _name(root) or soc or platform.machine() or "unknown machine",
        "soc": soc,
        "cores": _cores(),
        "isa": _isa(cpu),
        "memory_mb": _memory_mb(root),
        "os": _os(root),
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "temperature_c": temperature_c(root),
    }


def emulated(root: Path = Path("/"), machine: str | None = None) -> bool:
    """Whether an instruction-set emulator (qemu-user) is seen under this process.

    Seen by its environment, or by an ARM process that finds an x86 `/proc/cpuinfo`. An emulator that hides
    both is not noticed: whoever starts one has to say so (EDGEWISE_EMULATED=1).
    """
    arm = (machine or platform.machine()).lower().startswith(("aarch64", "arm"))
    told = "QEMU_CPU" in os.environ or "EDGEWISE_EMULATED" in os.environ
    return told or (arm and "vendor_id" in _cpuinfo(root))


def throttled(root: Path = Path("/")) -> str | None:
    """What a Raspberry Pi's firmware says of throttling since boot ("0x0": none), else None.

    Source: the firmware's `vcgencmd get_throttled`, of which the kernel shows the same bits in sysfs.
    """
    return _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")


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


def _name(root: Path) -> str | None:
    board = _text(root / "proc/device-tree/model")
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
    for limit in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        raw = _text(root / limit)
        if raw and raw.isdigit():
            sizes.append(int(raw) // 2**20)
    return min(sizes) if sizes else None


def _os(root: Path) -> str:
    lines = (_text(root / "etc/os-release") or "").splitlines()
    names = [line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")]
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    return ", ".join([*names, kernel])
