"""The kinds of cores of this machine (big.LITTLE and the like) and how fast each may run."""

import re
from pathlib import Path
from typing import Any

# ARM's part numbers of the cores in boards and phones. Source: Linux, arch/arm64/include/asm/cputype.h
_ARM = {
    0xB76: "ARM1176", 0xC07: "Cortex-A7", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9", 0xC0F: "Cortex-A15",
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
    0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD44: "Cortex-X1",
    0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520",
    0xD81: "Cortex-A720", 0xD82: "Cortex-X4",
}  # fmt: skip
_ARM_LTD = 0x41


def types(root: Path = Path("/")) -> list[dict[str, Any]] | None:
    """[{part, cores, max_mhz}], the slowest kind first, or None where the system tells no cores.

    `max_mhz` is the limit that the system sets now (None where it tells none), so a capped board shows.
    """
    kinds: dict[tuple[str | None, int | None], int] = {}
    for number, about in _listed(root).items():
        khz = _number(root / f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_max_freq")
        key = (_part(about), None if khz is None else round(khz / 1000))
        kinds[key] = kinds.get(key, 0) + 1
    ordered = sorted(kinds.items(), key=lambda kind: (kind[0][1] or 0, kind[0][0] or ""))
    return [{"part": part, "cores": count, "max_mhz": mhz} for (part, mhz), count in ordered] or None


def mhz(root: Path = Path("/")) -> float | None:
    """How fast the fastest core runs now, in MHz: `cpufreq` if there is one, else `/proc/cpuinfo`."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    running = [khz / 1000 for file in files if (khz := _number(file)) is not None]
    told = [float(about["cpu MHz"]) for about in _listed(root).values() if _is_number(about.get("cpu MHz"))]
    speeds = running or told
    return round(max(speeds), 1) if speeds else None


def _listed(root: Path) -> dict[int, dict[str, str]]:
    """What `/proc/cpuinfo` says of each core, by its number."""
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    found: dict[int, dict[str, str]] = {}
    for block in re.split(r"\n\s*\n", text):
        pairs = (line.partition(":") for line in block.splitlines())
        about = {key.strip(): value.strip() for key, _, value in pairs}
        if re.fullmatch(r"[0-9]{1,5}", about.get("processor", "")):
            found[int(about["processor"])] = about
    return found


def _part(about: dict[str, str]) -> str | None:
    """A core's name: by its maker's number on ARM, where a name is known for it."""
    if "CPU part" not in about:
        return about.get("model name")
    try:
        maker, part = int(about.get("CPU implementer", "0"), 16), int(about["CPU part"], 16)
    except ValueError:
        return None
    known = _ARM.get(part) if maker == _ARM_LTD else None
    return known or f"ARM part 0x{part:x} of maker 0x{maker:x}"


def _is_number(text: str | None) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text or ""))


def _number(path: Path) -> float | None:
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return None
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None
